//! What a plain scalar means: YAML 1.2.2's core schema (10.3.2), as far as policies need it.

/// The meaning of an unquoted scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `null`, `~`, or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A decimal integer in its shortest spelling: the text is certain.
    Integer,
    /// Another spelling of an integer: `0x10`, `010`, `+5`.
    OddInteger,
    /// A number with a fraction or an exponent, an infinity, or no number.
    Float,
    /// Everything else.
    String,
}

/// Says what an unquoted scalar means.
pub(super) fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Meaning::Float;
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let shortest = unsigned == "0" || !unsigned.starts_with('0');
        let minus_zero = text == "-0";
        return if shortest && !text.starts_with('+') && !minus_zero {
            Meaning::Integer
        } else {
            Meaning::OddInteger
        };
    }
    let digits_of = |prefix: &str, is_digit: fn(char) -> bool| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_digit))
    };
    if digits_of("0x", |c| c.is_ascii_hexdigit()) || digits_of("0o", |c| matches!(c, '0'..='7')) {
        return Meaning::OddInteger;
    }
    if is_float(unsigned) { Meaning::Float } else { Meaning::String }
}

/// `[0-9]+ (\. [0-9]*)? ([eE] [-+]? [0-9]+)?`, or the same beginning with the point.
fn is_float(unsigned: &str) -> bool {
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (unsigned, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len() + fraction.len();
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && all_digits(exponent)
    });
    digits > 0 && all_digits(whole) && all_digits(fraction) && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        let cases = [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("true", Meaning::Bool(true)),
            ("False", Meaning::Bool(false)),
            ("0", Meaning::Integer),
            ("-12", Meaning::Integer),
            ("010", Meaning::OddInteger),
            ("+1", Meaning::OddInteger),
            ("-0", Meaning::OddInteger),
            ("0x1F", Meaning::OddInteger),
            ("0o17", Meaning::OddInteger),
            ("1.0", Meaning::Float),
            (".5", Meaning::Float),
            ("1.", Meaning::Float),
            ("1e3", Meaning::Float),
            ("-1.5E-7", Meaning::Float),
            ("-.inf", Meaning::Float),
            (".nan", Meaning::Float),
            ("1.0.0", Meaning::String),
            (".", Meaning::String),
            ("e3", Meaning::String),
            ("1e", Meaning::String),
            ("v1", Meaning::String),
            ("0xZZ", Meaning::String),
            ("yes", Meaning::String),
            ("2026-01-01", Meaning::String),
        ];
        for (text, expected) in cases {
            assert_eq!(meaning(text), expected, "{text:?}");
        }
    }
}
