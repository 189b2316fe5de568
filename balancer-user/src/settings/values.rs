//! Values that YAML has no type for: durations, address ranges and paths.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::policy::is_domain_prefixed;

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `500ms`, `5s`, `10m`, `1h`, `2d`: a whole number and one unit.
///
/// # Errors
/// Another form; the text says what to write.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, millis)| *millis);
    match (number.parse::<u64>(), millis) {
        (Ok(number), Some(millis)) => number
            .checked_mul(millis)
            .map(Duration::from_millis)
            .ok_or_else(|| format!("`{text}` is longer than can be counted")),
        (Ok(_), None) if unit.is_empty() => {
            Err(format!("`{text}` has no unit; write `{text}s` for seconds"))
        }
        _ => Err(format!(
            "`{text}` is no duration; write a whole number and one of ms, s, m, h, d, \
             for example `5s`"
        )),
    }
}

/// `240.0.0.0/8`.
pub(super) fn range4(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let (address, prefix) = range(text, "240.0.0.0/8")?;
    let IpAddr::V4(address) = address else {
        return Err(format!("`{text}` is an IPv6 range where an IPv4 range belongs"));
    };
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    if prefix > 32 {
        return Err(format!("`{text}` has a prefix longer than 32 bits"));
    }
    if u32::from(address) & host != 0 {
        let network = Ipv4Addr::from(u32::from(address) & !host);
        return Err(format!("`{text}` has bits beyond its prefix; write `{network}/{prefix}`"));
    }
    // Fewer addresses than these are used up by a handful of services.
    if !(1..=30).contains(&prefix) {
        return Err(format!("`{text}` is no range to allocate from; its prefix must be 1 to 30"));
    }
    Ok((address, prefix))
}

/// `fd62:616c::/64`.
pub(super) fn range6(text: &str) -> Result<(Ipv6Addr, u8), String> {
    let (address, prefix) = range(text, "fd62:616c::/64")?;
    let IpAddr::V6(address) = address else {
        return Err(format!("`{text}` is an IPv4 range where an IPv6 range belongs"));
    };
    let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
    if prefix > 128 {
        return Err(format!("`{text}` has a prefix longer than 128 bits"));
    }
    if u128::from(address) & host != 0 {
        let network = Ipv6Addr::from(u128::from(address) & !host);
        return Err(format!("`{text}` has bits beyond its prefix; write `{network}/{prefix}`"));
    }
    if !(1..=126).contains(&prefix) {
        return Err(format!("`{text}` is no range to allocate from; its prefix must be 1 to 126"));
    }
    Ok((address, prefix))
}

fn range(text: &str, example: &str) -> Result<(IpAddr, u8), String> {
    let no_range = || format!("`{text}` is no address range; write it like `{example}`");
    let (address, prefix) = text.split_once('/').ok_or_else(no_range)?;
    match (address.parse(), prefix.parse()) {
        (Ok(address), Ok(prefix)) => Ok((address, prefix)),
        _ => Err(no_range()),
    }
}

/// `example.com/node`, as a GatewayClass names its controller.
pub(super) fn controller(text: &str) -> Result<String, String> {
    if is_domain_prefixed(text) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no controller name; one is a domain, `/` and a path"))
}

/// `10.0.0.53`, `10.0.0.53:5353`, `[fd00::53]:53`: port 53 where none is given.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
    match address {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(format!(
            "`{text}` is no address of a DNS server; write it like `10.0.0.53` or `10.0.0.53:5353`"
        )),
    }
}

/// An absolute path: the agent and a person's shell stand in different directories.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(text.into());
    }
    Err(format!("`{text}` is no absolute path; one begins with `/`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "5", "h", "1.5h", "-1s", "1 h", "1w", "18446744073709551615d"] {
            assert!(duration(wrong).is_err(), "{wrong} was accepted");
        }
        assert!(duration("5").unwrap_err().contains("`5s`"));
    }

    #[test]
    fn ranges_are_networks_of_their_family() {
        assert_eq!(range4("240.0.0.0/8"), Ok((Ipv4Addr::new(240, 0, 0, 0), 8)));
        assert_eq!(range6("fd62:616c::/64").unwrap().1, 64);
        assert!(range4("240.0.0.1/8").unwrap_err().contains("`240.0.0.0/8`"));
        for wrong in ["240.0.0.0", "240.0.0.0/33", "240.0.0.0/32", "0.0.0.0/0", "fd00::/8", "a/8"] {
            assert!(range4(wrong).is_err(), "{wrong} was accepted");
        }
        for wrong in ["fd00::1/64", "fd00::/129", "10.0.0.0/8", "::/0"] {
            assert!(range6(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
