//! Ranges of ports.

use std::{fmt, num::IntErrorKind};

/// From one port to another, both included; never empty, and without port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl Default for PortRange {
    /// Above what Linux gives the node's own connections (`net.ipv4.ip_local_port_range`: 32768 to
    /// 60999), so that no answer to one of these is taken for an answer to a client.
    fn default() -> Self {
        Self { first: 61_000, last: u16::MAX }
    }
}

impl PortRange {
    /// The lowest.
    pub fn first(self) -> u16 {
        self.first
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// `61000-65535`.
    ///
    /// # Errors
    /// Another form, no port in it, or one that is none; the text says what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is no range of ports; write it like `{}`", Self::default());
        let (first, last) = text.split_once('-').ok_or_else(form)?;
        let (first, last) = (port(first).ok_or_else(form)?, port(last).ok_or_else(form)?);
        let max = u16::MAX;
        match (first, last) {
            (None, _) => Err(format!("`{text}` begins above {max}, the highest port")),
            (Some(_), None) => Err(format!("`{text}` ends above {max}, the highest port")),
            (Some(first), Some(last)) if last < first => Err(format!(
                "`{text}` is empty: it ends below its first port; write `{last}-{first}`"
            )),
            (Some(0), Some(0)) => Err(format!("`{text}` is port 0, which no connection has")),
            (Some(0), Some(last)) => Err(format!(
                "`{text}` begins with port 0, which no connection has; write `1-{last}`"
            )),
            (Some(first), Some(last)) => Ok(Self { first, last }),
        }
        .map_err(|message| match message.contains("write `") {
            true => message,
            false => format!("{message}; write a range like `{}`", Self::default()),
        })
    }
}

/// A number; `Some(None)`: higher than any port.
fn port(text: &str) -> Option<Option<u16>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.parse() {
        Ok(port) => Some(Some(port)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(None),
        Err(_) => None,
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_ports_of_which_the_first_is_not_above_the_last() {
        let read = |text| PortRange::parse(text).map(|range| (range.first(), range.count()));
        assert_eq!(read("61000-65535"), Ok((61_000, 4_536)));
        assert_eq!(read("1-65535"), Ok((1, 65_535)));
        assert_eq!(read("7-7"), Ok((7, 1)));
        assert_eq!(PortRange::default().to_string(), "61000-65535");
        assert_eq!(PortRange::parse("61000-65535"), Ok(PortRange::default()));
    }

    #[test]
    fn what_is_no_range_says_what_to_write() {
        for (text, said) in [
            (
                "40000-39999",
                "`40000-39999` is empty: it ends below its first port; write `39999-40000`",
            ),
            ("0-100", "begins with port 0, which no connection has; write `1-100`"),
            ("0-0", "is port 0, which no connection has; write a range like `61000-65535`"),
            ("60000-70000", "ends above 65535, the highest port; write a range like"),
            ("70000-80000", "begins above 65535, the highest port; write a range like"),
            ("1-99999999999999999999999", "ends above 65535"),
            ("61000", "`61000` is no range of ports; write it like `61000-65535`"),
            ("a-b", "is no range of ports"),
            ("-", "is no range of ports"),
            ("", "is no range of ports"),
            ("1-2-3", "is no range of ports"),
            ("+1-2", "is no range of ports"),
            ("1 - 2", "is no range of ports"),
        ] {
            let message = PortRange::parse(text).expect_err(text);
            assert!(message.contains(said), "{message}");
        }
    }
}
