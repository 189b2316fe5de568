//! An event as a line of text or of JSON.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use balancer_ebpf::{
    abi::direction,
    reason::{Fate, Reason},
};
use serde::Serialize;

use super::names::Known;
use crate::{
    cli::{output::printable, show},
    kernel::Event,
    resolve::{VipKey, VipProtocol},
};

/// A new flow or a refused packet. `null`: not known, or there is none.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// `new` or `refused`.
    event: &'static str,
    /// UTC.
    time: String,
    reason: &'static str,
    /// `forward`, `drop` or `reset`.
    fate: &'static str,
    client: String,
    /// Dataplanes with the client's address, `MESH/NAME`.
    from: Vec<String>,
    /// What the client dialled; `null` for a packet of a real.
    vip: Option<String>,
    service: Option<String>,
    policy: Option<String>,
    backend: Option<String>,
    real: Option<String>,
    /// The client's port as the real sees it, where that is another one.
    seen_port: Option<u16>,
    /// Where the program sits that met the packet.
    interface: String,
    class: u32,
    /// How many such events this one stands for.
    stands_for: u32,
}

/// Client and, for packets of clients, VIP.
fn ends(event: &Event) -> (SocketAddr, Option<VipKey>) {
    if event.direction == direction::REPLY {
        (event.dst, None)
    } else {
        (event.src, Some(VipKey { addr: event.dst, protocol: event.protocol }))
    }
}

/// Whether an event is asked for.
pub(super) fn matches(event: &Event, known: Option<&Known>, service: Option<&str>) -> bool {
    let (client, vip) = ends(event);
    let from = match known.and_then(|known| known.wanted.as_ref()) {
        Some(wanted) => wanted.contains(&client.ip()),
        None => true,
    };
    let to = service.is_none_or(|service| {
        let found = known.zip(vip).and_then(|(known, vip)| known.services.get(&vip));
        found.is_some_and(|found| found == service)
    });
    from && to
}

impl Line {
    /// `known`: the names of the event's epoch, if they are at hand.
    pub(super) fn of(event: &Event, known: Option<&Known>) -> Self {
        let (client, vip) = ends(event);
        let route = known.and_then(|known| known.routes.get(&event.route));
        let counted = known.and_then(|known| known.backends.get(&event.counter)).cloned();
        let hollow = || {
            let blackhole = event.reason == Reason::Blackhole;
            route.filter(|_| blackhole).and_then(|route| route.blackhole.clone())
        };
        let real = known.and_then(|known| known.reals.get(&(event.real, event.generation)));
        // What the real sent has its address.
        let real = real.copied().or((vip.is_none()).then_some(event.src));
        let moved = event.client_port != 0 && event.client_port != client.port();
        Self {
            event: if event.reason.begins_flow() { "new" } else { "refused" },
            time: utc(event.time),
            reason: event.reason.name(),
            fate: match event.reason.fate() {
                Fate::Forward => "forward",
                // Nothing says to a sender of datagrams what a reset says.
                Fate::Reset if event.protocol == VipProtocol::Udp => "drop",
                Fate::Reset => "reset",
                Fate::Answer => "answer",
                Fate::Drop => "drop",
                Fate::Pass => "pass",
            },
            client: client.to_string(),
            from: known
                .and_then(|known| known.dataplanes.get(&client.ip()))
                .cloned()
                .unwrap_or_default(),
            vip: vip.map(|vip| vip.to_string()),
            service: known.zip(vip).and_then(|(known, vip)| known.services.get(&vip)).cloned(),
            policy: route.map(|route| route.policy.clone()),
            backend: counted.or_else(hollow),
            real: real.map(|real| real.to_string()),
            seen_port: (moved && event.reason.begins_flow()).then_some(event.client_port),
            interface: show::interface(event.ifindex),
            class: event.class,
            stands_for: event.sample,
        }
    }

    /// For people.
    pub(super) fn text(&self, reason: Reason) -> String {
        let word = if self.event == "new" { "new" } else { self.fate };
        let mut line = format!("{} {word:<5}", self.time);
        let client = with_name(&self.from.join(","), &self.client);
        match (&self.vip, &self.real) {
            (Some(vip), _) => {
                let vip = with_name(self.service.as_deref().unwrap_or_default(), vip);
                let _ = write!(line, " {client} -> {vip}");
            }
            (None, Some(real)) => {
                let _ = write!(line, " {real} -> {client}");
            }
            (None, None) => {
                let _ = write!(line, " -> {client}");
            }
        }
        if let Some(policy) = &self.policy {
            let _ = write!(line, " by {policy}");
        }
        if let Some(backend) = &self.backend {
            let _ = write!(line, " to {backend}");
        }
        if let (Some(real), Some(_)) = (&self.real, &self.vip) {
            let _ = write!(line, " at {real}");
        }
        if reason != Reason::NewFlow {
            let words = reason.text().trim_end_matches('.');
            let _ = write!(line, ": {}: {words}", self.reason);
        }
        if let Some(port) = self.seen_port {
            let _ = write!(line, "; the real sees port {port}");
        }
        if self.stands_for > 1 {
            let _ = write!(line, " (one of {})", self.stands_for);
        }
        printable(&line)
    }
}

fn with_name(name: &str, end: &str) -> String {
    if name.is_empty() { end.to_owned() } else { format!("{name} {end}") }
}

/// A moment as RFC 3339 has it, in UTC and to the millisecond.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March have their leap day at the end; 400 of them have 146,097 days,
    // and the first of day 0 is 719,468 days before 1970.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        cycle * 400 + year + next,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::names::RouteNames, *};

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an end")
    }

    fn event(reason: Reason) -> Event {
        Event {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_709_210_096_007),
            reason,
            sample: 1,
            epoch: 4,
            vip: 1,
            class: 2,
            route: 3,
            real: 5,
            generation: 6,
            counter: 7,
            ifindex: 0,
            direction: direction::FORWARD,
            protocol: VipProtocol::Tcp,
            src: at("10.0.0.11:40001"),
            dst: at("240.0.0.3:6379"),
            client_port: 40001,
        }
    }

    fn known() -> Known {
        let names = RouteNames {
            policy: "canary".to_owned(),
            blackhole: Some("redis{version=9}".to_owned()),
        };
        Known {
            epoch: 4,
            recorded: true,
            services: BTreeMap::from([(VipKey::tcp(at("240.0.0.3:6379")), "redis".to_owned())]),
            routes: BTreeMap::from([(3, names)]),
            backends: BTreeMap::from([(7, "redis{version=1}".to_owned())]),
            reals: BTreeMap::from([((5, 6), at("10.0.0.21:6379"))]),
            dataplanes: BTreeMap::from([(
                "10.0.0.11".parse().expect("an address"),
                vec!["default/web-1".to_owned()],
            )]),
            wanted: None,
        }
    }

    fn text(event: &Event, known: Option<&Known>) -> String {
        Line::of(event, known).text(event.reason)
    }

    #[test]
    fn new_flow_is_a_sentence_of_names_and_ends() {
        assert_eq!(
            text(&event(Reason::NewFlow), Some(&known())),
            "2024-02-29T12:34:56.007Z new   default/web-1 10.0.0.11:40001 -> redis \
             240.0.0.3:6379 by canary to redis{version=1} at 10.0.0.21:6379"
        );
    }

    #[test]
    fn refused_packet_has_its_reason_in_words() {
        let refused = Event { counter: 0, real: 0, client_port: 0, ..event(Reason::Blackhole) };
        assert_eq!(
            text(&refused, Some(&known())),
            "2024-02-29T12:34:56.007Z reset default/web-1 10.0.0.11:40001 -> redis \
             240.0.0.3:6379 by canary to redis{version=9}: blackhole: The share of a backend \
             without usable reals"
        );
    }

    #[test]
    fn datagram_says_so_and_is_dropped_where_a_segment_is_reset() {
        let refused = Event { protocol: VipProtocol::Udp, ..event(Reason::Blackhole) };
        let line = text(&refused, None);
        assert!(line.contains(" drop  10.0.0.11:40001 -> 240.0.0.3:6379/udp: blackhole"), "{line}");
    }

    #[test]
    fn without_names_there_are_addresses() {
        assert_eq!(
            text(&Event { sample: 10, ..event(Reason::NewFlow) }, None),
            "2024-02-29T12:34:56.007Z new   10.0.0.11:40001 -> 240.0.0.3:6379 (one of 10)"
        );
    }

    #[test]
    fn packet_of_a_real_names_the_real_first() {
        let reply = Event {
            direction: direction::REPLY,
            src: at("10.0.0.21:6379"),
            dst: at("10.0.0.11:40001"),
            route: 0,
            ..event(Reason::Fragment)
        };
        let line = text(&reply, Some(&known()));
        assert!(
            line.contains(" drop  10.0.0.21:6379 -> default/web-1 10.0.0.11:40001 to redis{"),
            "{line}"
        );
    }

    #[test]
    fn other_source_port_is_told() {
        let clash = Event { client_port: 2333, ..event(Reason::TupleClash) };
        assert!(text(&clash, None).ends_with("was taken; the real sees port 2333"));
    }

    #[test]
    fn filters_ask_for_the_service_and_the_source_by_the_names_of_the_epoch() {
        let (new, mut known) = (event(Reason::NewFlow), known());
        assert!(matches(&new, Some(&known), None) && matches(&new, None, None));
        assert!(matches(&new, Some(&known), Some("redis")));
        assert!(!matches(&new, Some(&known), Some("other")) && !matches(&new, None, Some("redis")));
        known.wanted = Some([new.src.ip()].into());
        assert!(matches(&new, Some(&known), None));
        known.wanted = Some([new.dst.ip()].into());
        assert!(!matches(&new, Some(&known), None));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let day = |days: u64| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400));
        for (days, date) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(day(days), format!("{date}T00:00:00.000Z"));
        }
    }
}
