//! Lines of gpsd's protocol, version 3. What we do not need is passed over; what makes no sense is an error.

use jiff::Timestamp;
use link::message::AltitudeDatum;
use serde::Deserialize;
use thiserror::Error;

use super::history::{Altitude, Attitude, Fix};

/// What gpsd said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Report {
    /// Who answers.
    Version { release: String, major: u32 },
    /// A position, with the receiver's time of it; `None` where the receiver has no fix.
    Fix {
        fix: Option<Fix>,
        time: Option<Timestamp>,
    },
    /// An attitude.
    Attitude(Attitude),
    /// Satellites used.
    Sky { used: u32 },
    /// Receivers that gpsd reads.
    Devices(usize),
    /// A receiver was plugged in or begins to speak.
    DeviceActivated,
    /// gpsd says that something is wrong.
    Error(String),
    /// Anything else.
    Other,
}

/// A line that is not of the protocol.
#[derive(Debug, Error)]
pub(super) enum ReportError {
    #[error("not JSON of gpsd: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{field} of {value} cannot be")]
    Range { field: &'static str, value: f64 },
}

#[derive(Deserialize)]
struct Class {
    class: String,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    release: String,
    #[serde(default)]
    proto_major: u32,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Tpv {
    #[serde(default)]
    mode: u8,
    time: Option<String>,
    lat: Option<f64>,
    lon: Option<f64>,
    alt: Option<f64>,
    altHAE: Option<f64>,
    altMSL: Option<f64>,
    geoidSep: Option<f64>,
    speed: Option<f64>,
    track: Option<f64>,
    epx: Option<f64>,
    epy: Option<f64>,
    epv: Option<f64>,
    eph: Option<f64>,
}

#[derive(Deserialize)]
struct Att {
    heading: Option<f64>,
    pitch: Option<f64>,
    roll: Option<f64>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct Sky {
    uSat: Option<u32>,
    satellites: Option<Vec<Satellite>>,
}

#[derive(Deserialize)]
struct Satellite {
    #[serde(default)]
    used: bool,
}

#[derive(Deserialize)]
struct Devices {
    #[serde(default)]
    devices: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Device {
    /// When; in older versions seconds since 1970.
    activated: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    message: String,
}

/// A 2-D fix; 3 has an altitude too.
const MODE_2D: u8 = 2;
const MODE_3D: u8 = 3;

impl Report {
    pub fn parse(line: &str) -> Result<Self, ReportError> {
        let class: Class = serde_json::from_str(line)?;
        Ok(match class.class.as_str() {
            "VERSION" => {
                let version: Version = serde_json::from_str(line)?;
                Self::Version {
                    release: version.release,
                    major: version.proto_major,
                }
            }
            "TPV" => serde_json::from_str::<Tpv>(line)?.report()?,
            "ATT" => Self::Attitude(serde_json::from_str::<Att>(line)?.attitude()?),
            "SKY" => {
                let sky: Sky = serde_json::from_str(line)?;
                let listed = sky.satellites.map(|list| {
                    let used = list.iter().filter(|satellite| satellite.used);
                    u32::try_from(used.count()).unwrap_or(u32::MAX)
                });
                match sky.uSat.or(listed) {
                    Some(used) => Self::Sky { used },
                    // Since 3.22 some say the dilution of precision alone.
                    None => Self::Other,
                }
            }
            "DEVICES" => {
                let devices: Devices = serde_json::from_str(line)?;
                Self::Devices(devices.devices.len())
            }
            "DEVICE" => {
                let device: Device = serde_json::from_str(line)?;
                match device.activated {
                    None | Some(serde_json::Value::Null) => Self::Other,
                    // Some versions say so of one that is not.
                    Some(activated) if activated == 0 || activated == 0.0 => Self::Other,
                    Some(_) => Self::DeviceActivated,
                }
            }
            "ERROR" => {
                let complaint: Complaint = serde_json::from_str(line)?;
                Self::Error(complaint.message)
            }
            _ => Self::Other,
        })
    }
}

impl Tpv {
    fn report(self) -> Result<Report, ReportError> {
        // Older versions of gpsd give seconds since 1970, which nobody has flown for ten years: no time then.
        let time = self.time.as_deref().and_then(|time| time.parse().ok());
        let (Some(latitude), Some(longitude)) = (self.lat, self.lon) else {
            return Ok(Report::Fix { fix: None, time });
        };
        if self.mode < MODE_2D {
            return Ok(Report::Fix { fix: None, time });
        }
        let latitude = within("lat", latitude, -90.0, 90.0)?;
        let longitude = within("lon", longitude, -180.0, 180.0)?;
        let altitude = if self.mode >= MODE_3D {
            self.altitude()
        } else {
            None
        };
        if let Some(altitude) = &altitude {
            within("altitude", altitude.meters, -1000.0, 50_000.0)?;
        }
        let speed = self.speed.map(|v| within("speed", v, 0.0, 1000.0));
        let track = self.track.map(|t| within("track", t, 0.0, 360.0));
        // epx and epy are of 95 %, eph is of no certainty that is stated.
        let error = match (self.epx, self.epy) {
            (Some(x), Some(y)) => Some(x.hypot(y)),
            _ => self.eph,
        };
        Ok(Report::Fix {
            fix: Some(Fix {
                latitude,
                longitude,
                altitude,
                speed: speed.transpose()?,
                track: track.transpose()?,
                error: error.filter(|error| (0.0..1e7).contains(error)),
            }),
            time,
        })
    }

    fn altitude(&self) -> Option<Altitude> {
        let error = self.epv.filter(|error| (0.0..1e6).contains(error));
        let of = |meters, datum| Altitude {
            meters,
            datum,
            error,
        };
        if let Some(meters) = self.altMSL {
            return Some(of(meters, AltitudeDatum::Sea));
        }
        match (self.altHAE, self.geoidSep) {
            (Some(meters), Some(separation)) => Some(of(meters - separation, AltitudeDatum::Sea)),
            (Some(meters), None) => Some(of(meters, AltitudeDatum::Ellipsoid)),
            (None, _) => Some(of(self.alt?, AltitudeDatum::Unsaid)),
        }
    }
}

impl Att {
    fn attitude(self) -> Result<Attitude, ReportError> {
        let heading = self.heading.map(|v| within("heading", v, -360.0, 360.0));
        let pitch = self.pitch.map(|v| within("pitch", v, -90.0, 90.0));
        let roll = self.roll.map(|v| within("roll", v, -180.0, 180.0));
        Ok(Attitude {
            heading: heading
                .transpose()?
                .map(|degrees| degrees.rem_euclid(360.0)),
            pitch: pitch.transpose()?,
            roll: roll.transpose()?,
        })
    }
}

fn within(field: &'static str, value: f64, least: f64, most: f64) -> Result<f64, ReportError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(ReportError::Range { field, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fix(line: &str) -> Fix {
        match Report::parse(line).unwrap() {
            Report::Fix { fix: Some(fix), .. } => fix,
            other => panic!("{other:?}"),
        }
    }

    /// As gpsd 3.22, 3.17 and one with the ellipsoid alone say it.
    #[test]
    fn altitudes_keep_their_datum() {
        let at = r#"{"class":"TPV","device":"/dev/pts/1","mode":3,"lat":41.5,"lon":-69.25,"#;
        let told = |rest: &str| fix(&format!("{at}{rest}}}")).altitude.unwrap();
        let both = told(r#""alt":300.0,"altHAE":270.0,"altMSL":301.5,"geoidSep":-31.5,"epv":5.75"#);
        assert_eq!((both.meters, both.datum), (301.5, AltitudeDatum::Sea));
        assert_eq!(both.error, Some(5.75));
        let separated = told(r#""altHAE":270.0,"geoidSep":-31.5"#);
        assert_eq!(
            (separated.meters, separated.datum),
            (301.5, AltitudeDatum::Sea)
        );
        let ellipsoid = told(r#""altHAE":270.0"#);
        assert_eq!(ellipsoid.datum, AltitudeDatum::Ellipsoid);
        assert_eq!(told(r#""alt":300.0"#).datum, AltitudeDatum::Unsaid);
        let flat = at.replace("\"mode\":3", "\"mode\":2");
        assert_eq!(fix(&format!("{flat}\"altMSL\":301.5}}")).altitude, None);
    }

    #[test]
    fn without_a_fix_there_is_none() {
        for line in [
            r#"{"class":"TPV","device":"/dev/pts/1","mode":1}"#,
            r#"{"class":"TPV","mode":0,"lat":41.5,"lon":-69.25}"#,
            r#"{"class":"TPV"}"#,
        ] {
            let report = Report::parse(line).unwrap();
            assert!(matches!(report, Report::Fix { fix: None, .. }), "{line}");
        }
    }

    #[test]
    fn nonsense_is_an_error_that_names_it() {
        for (line, named) in [
            (
                r#"{"class":"TPV","mode":3,"lat":141.5,"lon":-69.25}"#,
                "lat of 141.5",
            ),
            (
                r#"{"class":"TPV","mode":3,"lat":41.5,"lon":-69.25,"speed":-3}"#,
                "speed of -3",
            ),
            (r#"{"class":"ATT","pitch":120}"#, "pitch of 120"),
            (r#"{"class":"TPV","mode":3,"la"#, "not JSON"),
            ("$GPGGA,123519,4807.038,N", "not JSON"),
            ("[]", "not JSON"),
        ] {
            let error = Report::parse(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn satellites_are_counted_in_both_ways_of_saying_it() {
        let counted = Report::parse(r#"{"class":"SKY","uSat":9,"nSat":14}"#).unwrap();
        assert_eq!(counted, Report::Sky { used: 9 });
        let listed =
            r#"{"class":"SKY","satellites":[{"PRN":1,"used":true},{"PRN":2,"used":false}]}"#;
        assert_eq!(Report::parse(listed).unwrap(), Report::Sky { used: 1 });
    }

    proptest! {
        #[test]
        fn any_line_is_a_report_or_an_error(line in ".*") {
            let _ = Report::parse(&line);
        }

        #[test]
        fn any_numbers_are_a_report_or_an_error(
            mode in any::<u8>(), lat in any::<f64>(), lon in any::<f64>(), alt in any::<f64>()
        ) {
            let line = serde_json::json!({
                "class": "TPV", "mode": mode, "lat": lat, "lon": lon, "altMSL": alt,
            });
            if let Ok(Report::Fix { fix: Some(fix), .. }) = Report::parse(&line.to_string()) {
                prop_assert!(fix.latitude.abs() <= 90.0 && fix.longitude.abs() <= 180.0);
            }
        }
    }
}
