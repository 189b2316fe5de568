//! What delivers packets that are handed over: in each family a rule for their mark, and a routing
//! table in which every address is the node's own (ip-rule(8), ip-route(8)).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{
    super::{KernelError, netlink},
    Delivery,
};

/// Whose rules and routes are ours: a number of `/etc/iproute2/rt_protos` that nobody else has.
const OURS: RouteProtocol = RouteProtocol::Other(98);
/// The rule's place: behind the table `local` (0), before whatever an administrator routes by.
const PRIORITY: u32 = 2977;

/// Makes them; what is there stays.
pub(super) fn make(delivery: &Delivery, ipv6: bool) -> Result<(), KernelError> {
    let mut connection = open()?;
    for family in families(ipv6) {
        let new = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        // The route first: a rule without it would have the packets go on to other tables.
        let route = RouteNetlinkMessage::NewRoute(route(family, delivery.table, loopback()?));
        let rule = RouteNetlinkMessage::NewRule(rule(family, delivery));
        for message in [route, rule] {
            match connection.ask(message, new) {
                Err(e) if e.raw_os_error() != Some(libc::EEXIST) => {
                    let what = format!("making a rule and a route in table {}", delivery.table);
                    return Err(KernelError::system(what, e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Removes them, but for the routes where another delivery uses the table; what was there, as `ip`
/// writes it.
pub(super) fn remove(
    delivery: &Delivery,
    other: Option<&Delivery>,
) -> Result<Vec<String>, KernelError> {
    let mut connection = open()?;
    let mut removed = Vec::new();
    for family in families(true) {
        let failed = |what: &str| {
            let what = format!("{what} of {family:?} for the proxy");
            move |e| KernelError::system(what, e)
        };
        let rules = rules(&mut connection, family, delivery).map_err(failed("listing rules"))?;
        for rule in rules {
            let message = RouteNetlinkMessage::DelRule(rule);
            connection.ask(message, NLM_F_ACK).map_err(failed("removing a rule"))?;
            let Delivery { handed, own, table } = delivery;
            let mask = handed | own;
            removed.push(format!("rule fwmark {handed:#x}/{mask:#x} lookup {table}"));
        }
        if other.is_some_and(|other| other.table == delivery.table) {
            continue;
        }
        let routes =
            routes(&mut connection, family, delivery.table).map_err(failed("listing routes"))?;
        for route in routes {
            let message = RouteNetlinkMessage::DelRoute(route);
            connection.ask(message, NLM_F_ACK).map_err(failed("removing a route"))?;
            removed.push(format!("route local default dev lo table {}", delivery.table));
        }
    }
    Ok(removed)
}

fn families(ipv6: bool) -> impl Iterator<Item = AddressFamily> {
    [AddressFamily::Inet, AddressFamily::Inet6].into_iter().take(1 + usize::from(ipv6))
}

fn open() -> Result<netlink::Connection, KernelError> {
    netlink::Connection::open().map_err(|e| KernelError::system("opening rtnetlink", e))
}

fn loopback() -> Result<u32, KernelError> {
    netlink::interface_index("lo")?.ok_or_else(|| {
        let missing = io::Error::from_raw_os_error(libc::ENODEV);
        KernelError::system("looking for interface lo", missing)
    })
}

/// `local default dev lo table TABLE`
fn route(family: AddressFamily, table: u32, loopback: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family,
        protocol: OURS,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(loopback)];
    route
}

/// `fwmark HANDED/MASK lookup TABLE`
fn rule(family: AddressFamily, delivery: &Delivery) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Table(delivery.table),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(delivery.handed),
        RuleAttribute::FwMask(delivery.handed | delivery.own),
        RuleAttribute::Protocol(OURS),
    ];
    rule
}

/// Our rules, as the kernel tells them.
fn rules(
    connection: &mut netlink::Connection,
    family: AddressFamily,
    delivery: &Delivery,
) -> io::Result<Vec<RuleMessage>> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    let asked = rule(family, delivery);
    let answers = connection.ask(RouteNetlinkMessage::GetRule(request), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(rule) => Some(rule),
            _ => None,
        })
        .filter(|rule| asked.attributes.iter().all(|one| rule.attributes.contains(one)))
        .collect())
}

/// Our routes in the table.
fn routes(
    connection: &mut netlink::Connection,
    family: AddressFamily,
    table: u32,
) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let answers = connection.ask(RouteNetlinkMessage::GetRoute(request), NLM_F_DUMP)?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
        .filter(|route| {
            route.header.protocol == OURS
                && route.header.kind == RouteType::Local
                && route.attributes.contains(&RouteAttribute::Table(table))
        })
        .collect())
}
