//! The counters as Prometheus reads them: those of the health message, under other names.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use link::message::Health;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::observe::Counters;

pub(super) fn routes(counters: Arc<Counters>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(counters)
}

async fn metrics(State(counters): State<Arc<Counters>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("callosity");
    registry.register_collector(Box::new(Read(counters.health())));
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = encode(&mut text, &registry);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text)
}

/// A health message as metrics.
#[derive(Debug)]
struct Read(Health);

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let health = &self.0;
        let frames = &health.frames;
        for (name, help, value) in [
            (
                "frames_captured",
                "Frames that cameras gave",
                frames.captured,
            ),
            (
                "frames_looked_at",
                "Frames in which heads were looked for",
                frames.identified,
            ),
            (
                "frames_dropped",
                "Frames for which there was no time",
                frames.dropped,
            ),
            ("frames_failed", "Frames that cannot be used", frames.failed),
            (
                "frames_lost",
                "Frames that cameras took and that did not reach the program",
                frames.lost,
            ),
            ("heads", "Heads found", frames.heads),
            (
                "messages_sent",
                "Messages handed to the broker",
                health.link.sent,
            ),
            (
                "messages_acknowledged",
                "Messages that the broker acknowledged",
                health.link.acknowledged,
            ),
            (
                "messages_refused",
                "Messages that the broker would not take",
                health.link.refused,
            ),
            (
                "crops_dropped",
                "Crops thrown away because too many waited",
                health.link.crops_dropped,
            ),
            (
                "reconnects",
                "Connections to the broker after the first",
                health.link.reconnects,
            ),
        ] {
            one(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        let queues = &health.queues;
        for (name, help, value) in [
            (
                "frames_waiting",
                "Frames that wait to be looked at",
                queues.frames as f64,
            ),
            (
                "sightings_waiting",
                "Messages on sightings that wait to be sent",
                queues.sightings as f64,
            ),
            (
                "crops_waiting",
                "Crops that wait to be sent",
                queues.crops as f64,
            ),
            (
                "messages_set_aside",
                "Messages that the broker would not take yet",
                queues.set_aside as f64,
            ),
            (
                "messages_not_durable",
                "Messages in memory alone, since the disk takes no more",
                queues.not_durable as f64,
            ),
            (
                "problems",
                "Things that are wrong at the moment",
                health.problems.len() as f64,
            ),
            (
                "uptime_seconds",
                "Seconds since the program began",
                health.uptime_seconds,
            ),
        ] {
            one(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        if let Some(age) = health
            .position
            .as_ref()
            .and_then(|position| position.fix_age_seconds)
        {
            let help = "Age of the latest position";
            one(&mut encoder, "fix_age_seconds", help, &ConstGauge::new(age))?;
        }
        self.stages(&mut encoder)?;
        self.cameras(&mut encoder)?;
        self.hardware(&mut encoder)
    }
}

impl Read {
    fn stages(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let stages = self.0.stages.iter();
        let mean = stages.map(|(name, time)| (name.as_str(), time.mean_milliseconds));
        let help = "Mean time of a stage of a frame";
        labelled(encoder, "stage_milliseconds", help, "stage", mean)
    }

    fn cameras(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let cameras = &self.0.cameras;
        let captured = cameras.iter().map(|c| (c.name.as_str(), c.captured as f64));
        labelled(
            encoder,
            "camera_frames",
            "Frames that a camera gave",
            "camera",
            captured,
        )?;
        let failures = cameras.iter().map(|c| (c.name.as_str(), c.failures as f64));
        let help = "Times that a camera failed and was opened anew";
        labelled(encoder, "camera_failures", help, "camera", failures)
    }

    fn hardware(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Some(hardware) = &self.0.hardware else {
            return Ok(());
        };
        let temperatures = hardware.temperatures_celsius.iter();
        let temperatures = temperatures.map(|(name, celsius)| (name.as_str(), *celsius));
        labelled(
            encoder,
            "temperature_celsius",
            "Temperature",
            "sensor",
            temperatures,
        )?;
        let free = hardware.disks.iter();
        let free = free.map(|disk| (disk.holds.as_str(), disk.free_bytes as f64));
        labelled(
            encoder,
            "disk_free_bytes",
            "Bytes that are free",
            "holds",
            free,
        )
    }
}

fn one(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(descriptor)
}

/// A gauge for each of several things of a kind.
fn labelled<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, f64)>,
) -> fmt::Result {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (of, value) in values {
        let labels = [(label, of)];
        let metric = family.encode_family(&labels)?;
        ConstGauge::new(value).encode(metric)?;
    }
    Ok(())
}
