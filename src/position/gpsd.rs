//! A client of gpsd. It never gives up: gpsd may come later, vanish and come again, and say what makes no sense.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use link::message::PositionHealth;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::history::{Fix, History, Pose};
use super::report::Report;
use crate::clock::{Clock, is_trusted};

/// gpsd's own port.
const PORT: u16 = 2947;
/// The longest that anything waits before it looks whether it is to stop.
const TICK: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(5);
/// After this time without a word gpsd is asked whether it is there; after twice that it is not.
const SILENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// gpsd's longest answers have some 10 kB.
const LONGEST_LINE: usize = 64 << 10;
/// A fix this old is a problem.
const OLD: Duration = Duration::from_secs(5);
/// So long after something that makes no sense it is reported.
const REPORTED: Duration = Duration::from_secs(30);
/// The version of the protocol that is known.
const PROTOCOL: u32 = 3;
/// A fix cannot have taken longer from the receiver.
const LONGEST_WAY: Duration = Duration::from_secs(2);

/// Where gpsd listens: `HOST:PORT`, or `HOST` with gpsd's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpsdAddress {
    host: String,
    port: u16,
}

/// An address that is none.
#[derive(Debug, Error)]
#[error(
    "{0:?} is no address of gpsd: it is HOST or HOST:PORT, such as localhost:2947 or [::1]:2947"
)]
pub struct GpsdAddressError(String);

impl FromStr for GpsdAddress {
    type Err = GpsdAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || GpsdAddressError(text.to_owned());
        let bracketed = text.ends_with(']');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bracketed => (host, port.parse().map_err(|_| wrong())?),
            _ => (text, PORT),
        };
        let open = host.strip_prefix('[');
        let host = match open {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || port == 0 || host.contains(['/', ' ']) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for GpsdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is known of the position, and how it is come by. Clones share it.
#[derive(Clone, Default)]
pub struct Positioning {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    history: History,
    health: PositionHealth,
    connections: u64,
    /// Why gpsd cannot be reached.
    unreachable: Option<String>,
    /// As it says itself.
    has_no_receiver: bool,
    version: Option<u32>,
    nonsense: Option<(Duration, String)>,
    /// The receiver's time of the latest fix, with its moment.
    latest: Option<(Timestamp, Duration)>,
    began: Option<Duration>,
}

impl Positioning {
    /// Where the aircraft was at a moment of the monotonic clock; `None` where there never was a fix.
    pub fn at(&self, moment: Duration) -> Option<Pose> {
        self.state().history.at(moment)
    }

    /// How it fares.
    pub fn health(&self, now: Duration) -> PositionHealth {
        let state = self.state();
        let latest = state.history.latest();
        PositionHealth {
            fix_age_seconds: latest.map(|(at, _)| now.saturating_sub(at).as_secs_f64()),
            ..state.health.clone()
        }
    }

    /// What is wrong with it, if something is.
    pub fn problem(&self, now: Duration) -> Option<String> {
        let state = self.state();
        if let Some(reason) = &state.unreachable {
            return Some(reason.clone());
        }
        if let Some(version) = state.version.filter(|version| *version != PROTOCOL) {
            return Some(format!(
                "gpsd speaks version {version} of its protocol, of which only {PROTOCOL} is known: positions may be missing"
            ));
        }
        if state.health.connected && state.has_no_receiver {
            return Some(
                "gpsd has no receiver: is it plugged in and named in gpsd's DEVICES?".to_owned(),
            );
        }
        let since = state.history.latest().map(|(at, _)| at).or(state.began);
        let age = since.map(|at| now.saturating_sub(at));
        if let Some(age) = age.filter(|age| *age > OLD) {
            return Some(format!(
                "the receiver has had no fix for {} s: does its antenna see the sky?",
                age.as_secs()
            ));
        }
        match &state.nonsense {
            Some((at, what)) if now.saturating_sub(*at) <= REPORTED => Some(format!(
                "gpsd says what makes no sense, {} times so far: {what}",
                state.health.malformed
            )),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client of gpsd's JSON protocol.
pub struct Gpsd {
    /// Where it listens.
    pub address: GpsdAddress,
    /// Tells when something arrived, and is told what the satellites say.
    pub clock: Clock,
    /// What becomes known.
    pub positioning: Positioning,
}

impl Gpsd {
    /// Listens until `stop`. Connects again, after longer and longer pauses, whenever gpsd cannot be reached.
    pub fn run(&self, stop: &CancellationToken) {
        self.positioning.state().began = Some(self.clock.monotonic());
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let mut welcomed = false;
            let ended = self.listen(stop, &mut welcomed);
            let Err(e) = ended else { return };
            let reason = format!(
                "gpsd at {} cannot be reached: {e}; frames have an old position or none",
                self.address
            );
            {
                let mut state = self.positioning.state();
                if state.unreachable.is_none() {
                    warn!("{reason}");
                }
                state.health.connected = false;
                state.unreachable = Some(reason);
            }
            if welcomed {
                pause = FIRST_PAUSE;
            }
            wait(pause, stop);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, to its error; `Ok` where it is to stop.
    fn listen(&self, stop: &CancellationToken, welcomed: &mut bool) -> io::Result<()> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(CONNECT))?;
        stream.write_all(b"?WATCH={\"enable\":true,\"json\":true};\n")?;
        let mut lines = Lines::default();
        let mut heard = Instant::now();
        let mut asked = false;
        let mut buffer = [0; 4096];
        while !stop.is_cancelled() {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "it closed the connection",
                    ));
                }
                Ok(n) => {
                    let arrived = self.clock.monotonic();
                    heard = Instant::now();
                    asked = false;
                    lines.take(&buffer[..n], |line| {
                        *welcomed |= self.hear(line, arrived);
                    });
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e),
            }
            // gpsd is silent while it has no receiver.
            if heard.elapsed() >= SILENCE && !asked {
                stream.write_all(b"?VERSION;\n")?;
                asked = true;
            }
            if heard.elapsed() >= SILENCE * 2 {
                return Err(io::Error::new(ErrorKind::TimedOut, "it does not answer"));
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let addresses = (self.address.host.as_str(), self.address.port).to_socket_addrs()?;
        let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Hears bytes as if they arrived in two pieces.
    #[cfg(fuzzing)]
    pub fn hear_bytes(&self, bytes: &[u8], arrived: Duration) {
        let mut lines = Lines::default();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for piece in [first, second] {
            lines.take(piece, |line| {
                self.hear(line, arrived);
            });
        }
    }

    /// One line; `None` is one too long. Returns whether gpsd introduced itself with it.
    fn hear(&self, line: Option<&[u8]>, arrived: Duration) -> bool {
        let text = line.map(String::from_utf8_lossy);
        let parsed = match &text {
            Some(text) if text.trim().is_empty() => return false,
            Some(text) => Report::parse(text.trim()).map_err(|e| e.to_string()),
            None => Err(format!("a line of more than {LONGEST_LINE} bytes")),
        };
        let mut state = self.positioning.state();
        match parsed {
            Ok(Report::Version { release, major }) => {
                state.version = Some(major);
                if !state.health.connected {
                    info!("connected to gpsd {release} at {}", self.address);
                    state.health.reconnects = state.connections;
                    state.connections += 1;
                }
                state.health.connected = true;
                state.unreachable = None;
                return true;
            }
            Ok(Report::Fix { fix, time }) => {
                state.has_no_receiver = false;
                if let Some(fix) = fix {
                    self.fix(&mut state, fix, time, arrived);
                }
            }
            Ok(Report::Attitude(attitude)) => {
                state.health.attitudes += 1;
                state.history.add_attitude(arrived, attitude);
            }
            Ok(Report::Sky { used }) => state.health.satellites = Some(used),
            Ok(Report::Devices(receivers)) => state.has_no_receiver = receivers == 0,
            Ok(Report::DeviceActivated) => state.has_no_receiver = false,
            Ok(Report::Error(message)) => debug!("gpsd: {message}"),
            Ok(Report::Other) => {}
            Err(reason) => {
                debug!("gpsd: {reason}");
                state.health.malformed += 1;
                state.nonsense = Some((arrived, reason));
            }
        }
        false
    }

    fn fix(&self, state: &mut State, fix: Fix, time: Option<Timestamp>, arrived: Duration) {
        // A receiver that hangs says its last fix again and again.
        let repeated = state.latest.filter(|(latest, _)| Some(*latest) == time);
        let moment = match (repeated, time) {
            (Some((_, moment)), _) => moment,
            (None, Some(time)) => {
                self.clock.satellites_say(time, arrived);
                let moment = self.moment(time, arrived);
                state.latest = Some((time, moment));
                moment
            }
            (None, None) => arrived,
        };
        if repeated.is_none() {
            state.health.fixes += 1;
        }
        state.history.add_fix(moment, fix);
    }

    /// When the receiver was where it says, where its time can be compared with ours; else when it said so.
    fn moment(&self, time: Timestamp, arrived: Duration) -> Duration {
        let told = self.clock.monotonic_at(time);
        let trusted = is_trusted(self.clock.at(arrived).quality);
        if trusted && told.abs_diff(arrived) <= LONGEST_WAY {
            told.min(arrived)
        } else {
            arrived
        }
    }
}

/// Puts lines together from what arrives in pieces.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line is too long, and is passed over to its end.
    too_long: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut line: impl FnMut(Option<&[u8]>)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if self.begun.len() + piece.len() > LONGEST_LINE {
                self.too_long = true;
                self.begun.clear();
            }
            if !self.too_long {
                self.begun.extend_from_slice(piece);
            }
            // The last piece has no end yet.
            if pieces.peek().is_some() {
                line((!self.too_long).then_some(&self.begun));
                self.begun.clear();
                self.too_long = false;
            }
        }
    }
}

fn wait(pause: Duration, stop: &CancellationToken) {
    let end = Instant::now() + pause;
    while !stop.is_cancelled() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(TICK));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{Ipv4Addr, TcpListener};

    use proptest::prelude::*;

    use super::*;

    const VERSION: &str =
        "{\"class\":\"VERSION\",\"release\":\"3.22\",\"proto_major\":3,\"proto_minor\":14}\n";

    fn tpv(time: &str, latitude: f64) -> String {
        format!(
            "{{\"class\":\"TPV\",\"mode\":3,\"time\":\"{time}\",\"lat\":{latitude},\"lon\":-69.0,\
             \"altMSL\":300.0,\"speed\":50.0,\"track\":10.0,\"somethingNew\":[1,{{}}]}}\n"
        )
    }

    fn client(port: u16) -> Gpsd {
        Gpsd {
            address: format!("127.0.0.1:{port}").parse().unwrap(),
            clock: Clock::of_system(),
            positioning: Positioning::default(),
        }
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("never came: {what}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (text, said) in [
            ("localhost", "localhost:2947"),
            ("10.0.0.7:3000", "10.0.0.7:3000"),
            ("[::1]", "[::1]:2947"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(text.parse::<GpsdAddress>().unwrap().to_string(), said);
        }
        for text in [
            "",
            ":2947",
            "host:0",
            "host:99999",
            "::1",
            "[::1",
            "http://host",
        ] {
            let error = text.parse::<GpsdAddress>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    /// gpsd answers, says nonsense and half a line, vanishes, and comes again.
    #[test]
    fn garbage_and_a_gpsd_that_vanishes_are_survived_and_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gpsd = Arc::new(client(listener.local_addr().unwrap().port()));
        let stop = CancellationToken::new();
        let running = {
            let (gpsd, stop) = (gpsd.clone(), stop.clone());
            thread::spawn(move || gpsd.run(&stop))
        };
        let accept = || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut asked)
                .unwrap();
            assert!(asked.starts_with("?WATCH={\"enable\":true"), "{asked}");
            stream.write_all(VERSION.as_bytes()).unwrap();
            stream
        };
        let mut stream = accept();
        let first = tpv("2026-11-30T12:00:00.000Z", 41.0);
        let (head, tail) = first.split_at(40);
        stream.write_all(head.as_bytes()).unwrap();
        thread::sleep(TICK);
        stream.write_all(tail.as_bytes()).unwrap();
        stream
            .write_all(
                b"$GPGGA,123519,4807.038,N\n{\"class\":\"TPV\",\"mode\":3,\"lat\":999,\"lon\":0}\n",
            )
            .unwrap();
        stream.write_all(&vec![b'x'; 3 * LONGEST_LINE]).unwrap();
        stream.write_all(b"\n\xff\xfe\n").unwrap();
        stream
            .write_all(b"{\"class\":\"NEWS\"}\n{\"class\":\"ATT\",\"heading\":14.5}\n")
            .unwrap();
        // The same fix again is no new one.
        stream.write_all(first.as_bytes()).unwrap();
        stream.write_all(b"{\"class\":\"TPV\",\"mo").unwrap();
        let health = || gpsd.positioning.health(gpsd.clock.monotonic());
        let problem = || gpsd.positioning.problem(gpsd.clock.monotonic());
        until("nonsense", || {
            health().malformed == 4 && health().attitudes == 1
        });
        assert!(problem().unwrap().contains("makes no sense, 4 times"));
        assert_eq!((health().fixes, health().connected), (1, true));
        drop(stream);
        until("the end", || !health().connected);
        assert!(problem().unwrap().contains("closed the connection"));
        let mut stream = accept();
        stream
            .write_all(tpv("2026-11-30T12:00:05.000Z", 42.0).as_bytes())
            .unwrap();
        until("a fix again", || health().fixes == 2);
        assert_eq!(health().reconnects, 1);
        let pose = gpsd.positioning.at(gpsd.clock.monotonic()).unwrap();
        assert!((pose.fix.latitude - 42.0).abs() < 0.01);
        stop.cancel();
        running.join().unwrap();
    }

    #[test]
    fn another_version_is_told() {
        let gpsd = client(1);
        let version = VERSION.replace("\"proto_major\":3", "\"proto_major\":4");
        assert!(gpsd.hear(Some(version.as_bytes()), Duration::ZERO));
        let problem = gpsd.positioning.problem(Duration::ZERO).unwrap();
        assert!(problem.contains("version 4"), "{problem}");
    }

    /// gpsd lists what it has when it is asked, and says what is plugged in later in other words.
    #[test]
    fn a_receiver_that_is_plugged_in_later_is_no_problem() {
        let hears = |line: &str| {
            let gpsd = client(1);
            for line in [VERSION, r#"{"class":"DEVICES","devices":[]}"#, line] {
                gpsd.hear(Some(line.as_bytes()), Duration::from_secs(1));
            }
            gpsd.positioning.problem(Duration::from_secs(2))
        };
        let activated =
            r#"{"class":"DEVICE","path":"/dev/ttyACM0","activated":"2026-11-30T12:00:00.000Z"}"#;
        let fix = tpv("2026-11-30T12:00:00.000Z", 41.0);
        for line in [activated, &fix] {
            assert_eq!(hears(line), None, "{line}");
        }
        let ended = r#"{"class":"DEVICE","path":"/dev/ttyACM0","activated":0}"#;
        for line in ["", ended] {
            assert!(hears(line).unwrap().contains("no receiver"), "{line}");
        }
    }

    #[test]
    fn a_receiver_that_says_its_last_fix_for_ever_grows_old() {
        let gpsd = client(1);
        let said = tpv("2026-11-30T12:00:00.000Z", 41.0);
        for seconds in 0..20 {
            gpsd.hear(Some(said.as_bytes()), Duration::from_secs(100 + seconds));
        }
        let now = Duration::from_secs(119);
        let age = gpsd.positioning.health(now).fix_age_seconds.unwrap();
        assert!((age - 19.0).abs() < 1e-6, "{age}");
        assert!(
            gpsd.positioning
                .problem(now)
                .unwrap()
                .contains("no fix for 19 s")
        );
    }

    proptest! {
        /// Pieces of any size make the same lines.
        #[test]
        fn lines_are_whole(text in "[a-c\n]{0,200}", cuts in prop::collection::vec(0..200_usize, 0..20)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            for pair in cuts.windows(2) {
                lines.take(&bytes[pair[0]..pair[1]], |line| heard.push(line.unwrap().to_vec()));
            }
            let mut expected: Vec<_> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
            expected.pop();
            prop_assert_eq!(heard, expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let gpsd = client(1);
            gpsd.hear(Some(&bytes), Duration::from_secs(1));
            let _ = gpsd.positioning.problem(Duration::from_secs(2));
        }
    }
}
