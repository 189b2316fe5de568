//! Values of the command line that have a form of their own, from text.

use std::{net::SocketAddr, time::Duration};

use crate::{
    kernel::{Attachment, XdpMode, XdpOptions},
    resolve::VipProtocol,
    settings::duration,
};

/// Reads `--attach`: `IFACE=HOOK`.
///
/// # Errors
/// Another form, or a hook that there is not; the text says what to write.
pub(super) fn parse_attach(text: &str) -> Result<Attachment, String> {
    let Some((interface, hook)) = text.split_once('=') else {
        return Err(format!("the hook is missing; write `{text}=tc`"));
    };
    if interface.is_empty() {
        return Err("the name of the interface is missing; write `veth0=tc`".to_owned());
    }
    // IFNAMSIZ counts the closing zero byte.
    if interface.len() > 15 {
        return Err(format!("`{interface}` is longer than the 15 bytes of an interface name"));
    }
    let words: Vec<&str> = hook.split(':').collect();
    match words.as_slice() {
        ["tc", options @ ..] => tc(interface, options),
        ["xdp", options @ ..] => xdp(interface, options),
        _ => Err(format!("there is no hook `{hook}`; write `{interface}=tc` or `{interface}=xdp`")),
    }
}

/// What asks for source translation, at either hook.
const SNAT: &str = "snat";

fn tc(interface: &str, options: &[&str]) -> Result<Attachment, String> {
    match options.iter().find(|word| **word != SNAT) {
        Some(other) => Err(format!(
            "the hook tc has no option `{other}`; write `{interface}=tc`, or `{interface}=tc:snat`"
        )),
        None if options.is_empty() => Ok(Attachment::tc(interface)),
        None => Ok(Attachment::tc(interface).with_snat()),
    }
}

/// `generic`, a mode and `snat`, in any order.
fn xdp(interface: &str, words: &[&str]) -> Result<Attachment, String> {
    let mut options = XdpOptions::default();
    let mut said: Option<XdpMode> = None;
    for &word in words.iter().filter(|word| **word != SNAT) {
        match XdpMode::ALL.into_iter().find(|mode| mode.name() == word) {
            Some(mode) => {
                if let Some(other) = said.replace(mode) {
                    let (one, other) = (other.name(), mode.name());
                    return Err(format!("the mode is `{one}` or `{other}`, not both"));
                }
                options.mode = mode;
            }
            None if word == "generic" => options.generic = true,
            None => {
                return Err(format!(
                    "the hook xdp has no option `{word}`; write `{interface}=xdp`, or with \
                     `:generic`, `:snat`, `:nat`, `:dsr-ipip` or `:dsr-l2` behind it"
                ));
            }
        }
    }
    let attachment = Attachment::xdp(interface, options);
    match (words.contains(&SNAT), options.mode) {
        (false, _) => Ok(attachment),
        (true, XdpMode::Nat) => Ok(attachment.with_snat()),
        (true, mode) => {
            let mode = mode.name();
            Err(format!(
                "reals answer clients by themselves with `{mode}`, so they see the clients; write \
                 `{interface}=xdp:snat` or `{interface}=xdp:{mode}`"
            ))
        }
    }
}

/// Reads the interval of `--watch`, 100 ms at least.
///
/// # Errors
/// Another form, or a shorter one.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err(format!("`{text}` is too short: every look reads the maps; `100ms` at least"));
    }
    Ok(interval)
}

/// Reads `NAME:VALUE`.
///
/// # Errors
/// Another form.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write NAME:VALUE, for example x-canary:yes".to_owned()),
    }
}

/// Reads `tcp` or `udp`.
///
/// # Errors
/// Another word.
pub(super) fn parse_protocol(text: &str) -> Result<VipProtocol, String> {
    let named = VipProtocol::ALL.into_iter().find(|protocol| protocol.name() == text);
    named.ok_or_else(|| format!("`{text}` is none of tcp, udp"))
}

/// `--tuple`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
}

/// Reads `SRC:PORT,DST:PORT`.
///
/// # Errors
/// Another form, two families, or port 0.
pub(super) fn parse_tuple(text: &str) -> Result<Tuple, String> {
    const FORM: &str = "write SOURCE:PORT,DESTINATION:PORT, for example \
                        10.0.0.11:40000,240.0.0.3:6379 or [fd00::1]:40000,[fd62::3]:6379";
    let (src, dst) = text.split_once(',').ok_or(FORM)?;
    let end = |what: &str, part: &str| {
        part.trim()
            .parse::<SocketAddr>()
            .map_err(|_| format!("the {what} `{part}` is no ADDRESS:PORT; {FORM}"))
    };
    let (src, dst) = (end("source", src)?, end("destination", dst)?);
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(format!("{src} and {dst} are of different families"));
    }
    if src.port() == 0 || dst.port() == 0 {
        return Err("0 is no port of a connection".to_owned());
    }
    Ok(Tuple { src, dst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_xdp_is_asked_for_by_name() {
        let native = XdpOptions::default();
        assert_eq!(parse_attach("eth0=xdp"), Ok(Attachment::xdp("eth0", native)));
        let generic = XdpOptions { generic: true, ..native };
        assert_eq!(parse_attach("eth0=xdp:generic"), Ok(Attachment::xdp("eth0", generic)));
        let both = XdpOptions { mode: XdpMode::DsrL2, ..generic };
        assert_eq!(parse_attach("eth0=xdp:dsr-l2:generic"), Ok(Attachment::xdp("eth0", both)));
    }

    #[test]
    fn source_translation_is_asked_for_at_either_hook_in_any_order() {
        let native = XdpOptions::default();
        let generic = XdpOptions { generic: true, ..native };
        for (text, expected) in [
            ("eth0=tc:snat", Attachment::tc("eth0")),
            ("eth0=xdp:snat", Attachment::xdp("eth0", native)),
            ("eth0=xdp:nat:snat", Attachment::xdp("eth0", native)),
            ("eth0=xdp:generic:snat", Attachment::xdp("eth0", generic)),
            ("eth0=xdp:snat:generic", Attachment::xdp("eth0", generic)),
        ] {
            assert_eq!(parse_attach(text), Ok(expected.with_snat()), "{text}");
        }
        for (text, part) in [
            ("eth0=tc:snta", "no option `snta`; write `eth0=tc`, or `eth0=tc:snat`"),
            ("eth0=tc:", "no option ``"),
            ("eth0=xdp:snat:", "no option ``"),
            ("eth0=snat", "no hook `snat`"),
            ("eth0=xdp:dsr-l2:snat", "answer clients by themselves with `dsr-l2`"),
            ("eth0=xdp:snat:generic:dsr-ipip", "write `eth0=xdp:snat` or `eth0=xdp:dsr-ipip`"),
        ] {
            let said = parse_attach(text).expect_err(text);
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn mode_of_xdp_is_one_that_there_is() {
        for mode in XdpMode::ALL {
            let expected = XdpOptions { mode, generic: false };
            let text = format!("eth0=xdp:{}", mode.name());
            assert_eq!(parse_attach(&text), Ok(Attachment::xdp("eth0", expected)));
        }
        let said = parse_attach("eth0=xdp:dsr").expect_err("no such mode");
        assert!(said.contains("`dsr`") && said.contains(":dsr-ipip"), "{said}");
        parse_attach("eth0=tc:dsr-l2").expect_err("not of the hook tc");
        let said = parse_attach("eth0=xdp:dsr-l2:generic:dsr-ipip").expect_err("two modes");
        assert_eq!(said, "the mode is `dsr-l2` or `dsr-ipip`, not both");
    }

    #[test]
    fn attach_needs_an_interface_and_a_known_hook() {
        assert_eq!(parse_attach("veth0=tc"), Ok(Attachment::tc("veth0")));
        for wrong in ["veth0", "=tc", "veth0=tcx", "a-name-longer-than-the-kernel-takes=tc"] {
            assert!(parse_attach(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn protocol_is_tcp_or_udp() {
        assert_eq!(parse_protocol("udp"), Ok(VipProtocol::Udp));
        assert_eq!(parse_protocol("sctp"), Err("`sctp` is none of tcp, udp".to_owned()));
    }

    #[test]
    fn tuple_needs_two_ends_of_one_family() {
        assert!(parse_tuple("10.0.0.1:1,10.0.0.2:2").is_ok());
        assert!(parse_tuple("[fd00::1]:1,[fd00::2]:2").is_ok());
        for wrong in [
            "",
            "10.0.0.1:1",
            "10.0.0.1,10.0.0.2:2",
            "10.0.0.1:1,[fd00::2]:2",
            "10.0.0.1:0,10.0.0.2:2",
        ] {
            assert!(parse_tuple(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
