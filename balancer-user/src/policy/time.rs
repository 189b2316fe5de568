//! Time stamps of resources: RFC 3339 into seconds.

/// Seconds since 1970-01-01T00:00:00Z with a fraction, or `None` if the text is no time stamp of
/// RFC 3339 (section 5.6). A leap second counts as the first second of the next minute.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_at_checked(10)?;
    let (year, month, day) =
        (number(&date[..4])?, number(date.get(5..7)?)?, number(date.get(8..)?)?);
    if !date.is_ascii() || date.as_bytes()[4] != b'-' || date.as_bytes()[7] != b'-' {
        return None;
    }
    let time = time.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = time.split_at_checked(8)?;
    if !clock.is_ascii() || clock.as_bytes()[2] != b':' || clock.as_bytes()[5] != b':' {
        return None;
    }
    let (hour, minute, second) =
        (number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..])?);
    if !(1..=12).contains(&month)
        || !(1..=days_of_month(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let fraction = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("0.{digits}").parse().ok()?
        }
        None if fraction.is_empty() => 0.0,
        _ => return None,
    };
    let days = days_since_epoch(year, month, day);
    let whole = ((days * 24 + hour) * 60 + minute) * 60 + second - offset_seconds(zone)?;
    // Exact up to 2^53 seconds; the fraction keeps about 0.2 µs.
    #[expect(clippy::cast_precision_loss, reason = "years have four digits")]
    Some(whole as f64 + fraction)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone[1..].split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60)
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that
/// the leap day is the last of its year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_rfc_3339_are_read() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), Some(-1.0));
        assert_eq!(seconds("2000-02-29T12:00:00Z"), Some(951_825_600.0));
        assert_eq!(seconds("2026-03-01T10:00:00Z"), Some(1_772_359_200.0));
        assert_eq!(seconds("2026-03-01t12:00:00.5+02:00"), Some(1_772_359_200.5));
        assert_eq!(seconds("2026-03-01T04:30:00-05:30"), Some(1_772_359_200.0));
        assert_eq!(seconds("1990-12-31T23:59:60Z"), Some(662_688_000.0));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), Some(-62_135_596_800.0));
    }

    #[test]
    fn other_texts_are_no_timestamps() {
        for text in [
            "",
            "2026-03-01",
            "2026-03-01T10:00:00",
            "2026-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T10:00:00.Z",
            "2026-03-01T10:00:00+2:00",
            "2026/03/01T10:00:00Z",
            "éééééééééé",
            "2026-03-01T10:00:00é",
            "20é6-03-01T10:00:00Z",
            "2026-03-01T10:é0:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
