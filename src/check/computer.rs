use super::Finding;
use crate::observe::Hardware;
use crate::settings::Loaded;

/// Below this share of its clock a processor is slowed down by its power mode or by heat.
const SLOW: f64 = 0.5;

pub(super) fn all(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "computer";
    let archive = loaded.settings.archive.folder.clone();
    let disks = [("outbox", loaded.state().ok()), ("archive", archive)];
    let disks = disks.into_iter();
    let disks = disks.filter_map(|(holds, at)| Some((holds.to_owned(), at?)));
    let computer = Hardware::of_this(disks.collect());
    if let Some(problem) = computer.problem() {
        tell(Finding::attention(
            PART,
            problem,
            "mend it before it costs frames",
        ));
    }
    let health = computer.health();
    let hottest = health.temperatures_celsius.iter();
    let hottest = hottest.max_by(|a, b| a.1.total_cmp(b.1));
    let mut found = vec![match hottest {
        Some((name, celsius)) => format!("hottest is {name} at {celsius:.0} °C"),
        None => "it tells no temperature".to_owned(),
    }];
    found.extend(health.power_mode.map(|mode| format!("power mode {mode}")));
    if let Some(share) = health.processor_clock_share {
        found.push(format!("processor at {:.0} % of its clock", 100.0 * share));
    }
    let found = found.join("; ");
    tell(match health.over_current_events {
        Some(events) if events > 0 => Finding::attention(
            PART,
            format!("{found}; it slowed down {events} times because it drew too much current"),
            "give it a stronger supply, or a lower power mode: `nvpmodel -q` shows the present one",
        ),
        _ if health
            .processor_clock_share
            .is_some_and(|share| share < SLOW) =>
        {
            // An idle processor is slow too.
            Finding::ok(PART, format!("{found} (it may be idle)"))
        }
        _ => Finding::ok(PART, found),
    });
}
