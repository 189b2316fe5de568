//! Durations of the Gateway API (GEP-2257): one to four numbers of at most five digits, each with
//! its unit.

use crate::policy::{
    fields::{Context, Field},
    words::shortened,
};

/// Reads one, in milliseconds.
pub(super) fn milliseconds(cx: &mut Context<'_>, field: &Field<'_>) -> Option<u64> {
    let text = field.string(cx)?;
    let read = parse(text);
    if read.is_none() {
        cx.report(field.error(format!("`{}` is no duration", shortened(text))).hint(
            "write up to four numbers with h, m, s or ms, e.g. 10s, 1m30s or 200ms; no fractions",
        ));
    }
    read
}

fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let (unit, width) = match after.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b'h', ..] => (3_600_000, 1),
            [b'm', ..] => (60_000, 1),
            [b's', ..] => (1_000, 1),
            _ => return None,
        };
        parts += 1;
        if digits == 0 || digits > 5 || parts > 4 {
            return None;
        }
        sum += number.parse::<u64>().ok()? * unit;
        rest = &after[width..];
    }
    (parts > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        let cases = [
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("1s1s", Some(2_000)),
            ("99999h", Some(359_996_400_000)),
            ("", None),
            ("0", None),
            ("s", None),
            ("1", None),
            ("1d", None),
            ("-1s", None),
            ("1.5s", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("1s ", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
