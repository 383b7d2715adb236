use exif::{Exif, In, Tag, Value};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// Where a photograph was taken, by WGS 84.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// In degrees, north positive, −90…90.
    pub latitude: f64,
    /// In degrees, east positive, −180…180.
    pub longitude: f64,
    /// Above sea level, in metres.
    pub altitude: Option<f64>,
}

/// When and where a photograph was taken, as its EXIF says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Taken {
    /// When. A time of the camera's clock counts only with its offset from UTC beside it; else the time of the GPS
    /// counts. Nobody checked the camera's clock.
    pub time: Option<Timestamp>,
    /// Where.
    pub place: Option<Place>,
}

impl Taken {
    pub(super) fn of(exif: &Exif) -> Self {
        Self {
            time: original(exif).or_else(|| gps_time(exif)),
            place: place(exif),
        }
    }
}

fn text(exif: &Exif, tag: Tag) -> Option<&str> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(lines) => {
            let line = std::str::from_utf8(lines.first()?).ok()?;
            Some(line.trim_matches(['\0', ' ']))
        }
        _ => None,
    }
}

fn rationals<const N: usize>(exif: &Exif, tag: Tag) -> Option<[f64; N]> {
    let Value::Rational(values) = &exif.get_field(tag, In::PRIMARY)?.value else {
        return None;
    };
    let values: Vec<f64> = values.iter().take(N).map(exif::Rational::to_f64).collect();
    let values: [f64; N] = values.try_into().ok()?;
    values
        .iter()
        .all(|value| value.is_finite())
        .then_some(values)
}

/// `2024:03:05 14:01:59` with `-05:00` and the digits of its fraction.
fn original(exif: &Exif) -> Option<Timestamp> {
    let local = text(exif, Tag::DateTimeOriginal)?;
    let local = DateTime::strptime("%Y:%m:%d %H:%M:%S", local).ok()?;
    let offset = offset(text(exif, Tag::OffsetTimeOriginal)?)?;
    let time = TimeZone::fixed(offset).to_timestamp(local).ok()?;
    let digits = text(exif, Tag::SubSecTimeOriginal).unwrap_or("");
    let fraction: f64 = format!("0.{digits}").parse().unwrap_or(0.0);
    let fraction = jiff::SignedDuration::from_millis((fraction * 1000.0) as i64);
    time.checked_add(fraction).ok()
}

/// `+hh:mm`, `-hh:mm` or `Z`.
fn offset(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..=23).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    Offset::from_seconds(sign * (3600 * hours + 60 * minutes)).ok()
}

/// `2024:03:05` and hours, minutes, seconds; UTC by definition.
fn gps_time(exif: &Exif) -> Option<Timestamp> {
    let date = jiff::civil::Date::strptime("%Y:%m:%d", text(exif, Tag::GPSDateStamp)?).ok()?;
    let [hours, minutes, seconds] = rationals(exif, Tag::GPSTimeStamp)?;
    let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    let milliseconds = 1000.0 * (3600.0 * hours + 60.0 * minutes + seconds);
    if !(0.0..=86_400_000.0).contains(&milliseconds) {
        return None;
    }
    midnight
        .checked_add(jiff::SignedDuration::from_millis(
            milliseconds.round() as i64
        ))
        .ok()
}

fn place(exif: &Exif) -> Option<Place> {
    let degrees = |tag, hemisphere, negative: &str, most: f64| {
        let [degrees, minutes, seconds] = rationals(exif, tag)?;
        let value = degrees + minutes / 60.0 + seconds / 3600.0;
        let sign = match text(exif, hemisphere)? {
            said if said == negative => -1.0,
            "N" | "E" => 1.0,
            _ => return None,
        };
        (value <= most).then_some(sign * value)
    };
    let below_sea = match &exif.get_field(Tag::GPSAltitudeRef, In::PRIMARY) {
        Some(field) => field.value.get_uint(0) == Some(1),
        None => false,
    };
    let altitude = rationals::<1>(exif, Tag::GPSAltitude);
    Some(Place {
        latitude: degrees(Tag::GPSLatitude, Tag::GPSLatitudeRef, "S", 90.0)?,
        longitude: degrees(Tag::GPSLongitude, Tag::GPSLongitudeRef, "W", 180.0)?,
        altitude: altitude.map(|[metres]| if below_sea { -metres } else { metres }),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use exif::experimental::Writer;
    use exif::{Field, Rational};

    use super::*;

    fn exif_of(fields: &[(Tag, Value)]) -> Exif {
        let fields: Vec<Field> = fields
            .iter()
            .map(|(tag, value)| Field {
                tag: *tag,
                ifd_num: In::PRIMARY,
                value: value.clone(),
            })
            .collect();
        let mut writer = Writer::new();
        for field in &fields {
            writer.push_field(field);
        }
        let mut bytes = Cursor::new(Vec::new());
        writer.write(&mut bytes, false).unwrap();
        exif::Reader::new().read_raw(bytes.into_inner()).unwrap()
    }

    fn ascii(text: &str) -> Value {
        Value::Ascii(vec![text.as_bytes().to_vec()])
    }

    fn rational(values: &[(u32, u32)]) -> Value {
        let values = values.iter().map(|&(num, denom)| Rational { num, denom });
        Value::Rational(values.collect())
    }

    #[test]
    fn a_clock_counts_with_its_offset_only() {
        let mut fields = vec![
            (Tag::DateTimeOriginal, ascii("2024:03:05 22:01:59")),
            (Tag::SubSecTimeOriginal, ascii("25")),
        ];
        assert_eq!(Taken::of(&exif_of(&fields)), Taken::default());
        fields.push((Tag::OffsetTimeOriginal, ascii("-05:00")));
        let time = Taken::of(&exif_of(&fields)).time.unwrap();
        assert_eq!(time.to_string(), "2024-03-06T03:01:59.25Z");
    }

    #[test]
    fn gps_tells_time_and_place() {
        let fields = [
            (Tag::GPSDateStamp, ascii("2024:03:05")),
            (Tag::GPSTimeStamp, rational(&[(14, 1), (1, 1), (595, 10)])),
            (Tag::GPSLatitudeRef, ascii("N")),
            (Tag::GPSLatitude, rational(&[(41, 1), (30, 1), (0, 1)])),
            (Tag::GPSLongitudeRef, ascii("W")),
            (Tag::GPSLongitude, rational(&[(69, 1), (0, 1), (36, 1)])),
            (Tag::GPSAltitudeRef, Value::Byte(vec![0])),
            (Tag::GPSAltitude, rational(&[(3048, 10)])),
        ];
        let taken = Taken::of(&exif_of(&fields));
        assert_eq!(taken.time.unwrap().to_string(), "2024-03-05T14:01:59.5Z");
        let place = taken.place.unwrap();
        assert!((place.latitude - 41.5).abs() < 1e-9, "{place:?}");
        assert!((place.longitude + 69.01).abs() < 1e-9, "{place:?}");
        assert_eq!(place.altitude, Some(304.8));
    }

    #[test]
    fn nonsense_is_nothing() {
        let fields = [
            (Tag::DateTimeOriginal, ascii("0000:00:00 00:00:00")),
            (Tag::OffsetTimeOriginal, ascii("+99:99")),
            (Tag::GPSDateStamp, ascii("2024:02:31")),
            (Tag::GPSLatitudeRef, ascii("N")),
            (Tag::GPSLatitude, rational(&[(41, 0), (30, 1), (0, 1)])),
            (Tag::GPSLongitudeRef, ascii("?")),
            (Tag::GPSLongitude, rational(&[(900, 1), (0, 1), (36, 1)])),
        ];
        assert_eq!(Taken::of(&exif_of(&fields)), Taken::default());
    }
}
