//! Elements as rows: a key, then the fields of the value.

use std::net::IpAddr;

use balancer_ebpf::{
    abi::{
        CHUNK_WORDS, Device, RouteEntry, Table, flow_state, forwarding, interface_flags, map_names,
        pick, real_flags, route_flags, route_kind, vip_flags,
    },
    reason::Reason,
};
use serde_json::{Value, json};

use super::key::{Key, ethernet_text};
use crate::kernel::{Element, FlowRow, FragmentRow, KernelError, View, real_address};

/// Every element of a map, by key; of arrays those that are not empty, or `all`.
pub(super) fn all(view: &View, name: &str, all: bool) -> Result<Vec<Value>, KernelError> {
    match view.array_len(name)? {
        None => Ok(dictionary(view, name)?.into_iter().map(|(_, row)| row).collect()),
        Some(len) => view.consistent(|epoch| {
            let elements = view.array(name, 0..len)?;
            Ok((0..len)
                .zip(&elements)
                .filter(|(_, element)| all || !element.is_empty())
                .map(|(index, element)| array_row(index, element, len, epoch))
                .collect())
        }),
    }
}

/// The element with this key.
pub(super) fn one(view: &View, name: &str, key: &Key) -> Result<Option<Value>, KernelError> {
    match (view.array_len(name)?, key) {
        (Some(len), Key::Index(index)) if *index < len => view.consistent(|epoch| {
            let elements = view.array(name, *index..*index + 1)?;
            Ok(elements.first().map(|element| array_row(*index, element, len, epoch)))
        }),
        (Some(_), _) => Ok(None),
        (None, key) => {
            let rows = dictionary(view, name)?;
            Ok(rows.into_iter().find_map(|(found, row)| (found == *key).then_some(row)))
        }
    }
}

/// The elements of a hash map, sorted by what is printed.
fn dictionary(view: &View, name: &str) -> Result<Vec<(Key, Value)>, KernelError> {
    let mut rows: Vec<(Key, Value)> = match name {
        map_names::VIP_IDS4 | map_names::VIP_IDS6 => {
            let mut vips = view.vip_dictionary()?;
            vips.retain(|(key, _)| key.addr.is_ipv4() == (name == map_names::VIP_IDS4));
            vips.sort_unstable();
            vips.into_iter()
                .map(|(key, id)| (Key::Vip(key), json!({"key": key.to_string(), "vip": id})))
                .collect()
        }
        map_names::SOURCE_IDS4 | map_names::SOURCE_IDS6 => {
            let mut sources = view.source_dictionary()?;
            sources.retain(|(key, _)| key.is_ipv4() == (name == map_names::SOURCE_IDS4));
            sources.sort_unstable();
            sources
                .into_iter()
                .map(|(key, id)| (Key::Address(key), json!({"key": key.to_string(), "source": id})))
                .collect()
        }
        map_names::VIP_ADDRESSES4 | map_names::VIP_ADDRESSES6 => {
            let mut addresses = view.vip_addresses()?;
            addresses.retain(|(key, _)| key.is_ipv4() == (name == map_names::VIP_ADDRESSES4));
            addresses.sort_unstable();
            addresses
                .into_iter()
                .map(|(key, vips)| {
                    (Key::Address(key), json!({"key": key.to_string(), "vips": vips}))
                })
                .collect()
        }
        map_names::FRAGMENTS => {
            let mut rows = view.fragments()?;
            rows.sort_unstable_by_key(|row| (row.leaving, row.from, row.id, row.proto));
            rows.iter().map(fragment_row).collect()
        }
        map_names::CLASS_ROUTES => {
            let mut routes = view.class_route_dictionary()?;
            routes.sort_unstable();
            routes
                .into_iter()
                .map(|((class, vip), route)| {
                    let key = Key::ClassVip(class, vip);
                    let printed = key.to_string();
                    (key, json!({"key": printed, "class": class, "vip": vip, "route": route}))
                })
                .collect()
        }
        map_names::DEVICES => view
            .devices()?
            .into_iter()
            .map(|(interface, device)| (Key::Index(interface), device_row(interface, &device)))
            .collect(),
        map_names::HOP_IDS => view
            .hop_ids()?
            .into_iter()
            .map(|(key, id)| (Key::Hop(key), json!({"key": Key::Hop(key).to_string(), "hop": id})))
            .collect(),
        map_names::INTERFACES => {
            let mut interfaces = view.interface_flags()?;
            interfaces.sort_unstable();
            let words = [
                (interface_flags::DIRECT, "direct"),
                (interface_flags::PEER, "peer"),
                (interface_flags::AUTO, "auto"),
                (interface_flags::FORCED, "forced"),
            ];
            interfaces
                .into_iter()
                .map(|(ifindex, flags, left)| {
                    let left = left.map(|left| left.as_millis());
                    let flags = bits(flags, &words);
                    let row = json!({"key": ifindex, "flags": flags, "left_ms": left});
                    (Key::Index(ifindex), row)
                })
                .collect()
        }
        _ => {
            let v4 = name == map_names::FLOWS4 || name == map_names::HALF_OPEN4;
            let half_open = name == map_names::HALF_OPEN4 || name == map_names::HALF_OPEN6;
            let mut flows = view.flows()?;
            flows.retain(|flow| flow.half_open == half_open && flow.src.is_ipv4() == v4);
            flows.sort_unstable_by_key(|flow| {
                (flow.direction, flow.src, flow.dst, flow.vip.protocol)
            });
            flows.iter().map(flow_row).collect()
        }
    };
    // The walk of a hash map may meet an element twice that was replaced meanwhile.
    rows.dedup_by_key(|(key, _)| *key);
    Ok(rows)
}

fn fragment_row(row: &FragmentRow) -> (Key, Value) {
    let key = Key::Fragment(row.leaving, row.from, row.id, row.proto);
    let value = json!({
        "key": key.to_string(),
        "source": row.to[0].to_string(),
        "destination": row.to[1].to_string(),
        "seen_jiffies": row.seen_jiffies,
    });
    (key, value)
}

fn device_row(interface: u32, device: &Device) -> Value {
    let source = |addr: IpAddr| (!addr.is_unspecified()).then(|| addr.to_string());
    json!({
        "key": interface,
        "takes_frames": device.takes_frames != 0,
        "source4": source(device.source4.into()),
        "source6": source(device.source6.into()),
        "snat": device.snat != 0,
    })
}

fn flow_row(row: &FlowRow) -> (Key, Value) {
    let key = Key::Flow(row.direction, row.vip.protocol, row.src, row.dst);
    let flow = &row.flow;
    let state = [
        (flow_state::SYN_ACK, "syn_ack"),
        (flow_state::ESTABLISHED, "established"),
        (flow_state::CLIENT_FIN, "client_fin"),
        (flow_state::REAL_FIN, "real_fin"),
        (flow_state::RESET, "reset"),
        (flow_state::ADOPTED, "adopted"),
    ];
    let forwarding = [
        (forwarding::HOST, "host"),
        (forwarding::HAIRPIN, "hairpin"),
        (forwarding::DIRECT, "direct"),
        (forwarding::DSR_L2, "dsr-l2"),
        (forwarding::DSR_IPIP, "dsr-ipip"),
        (forwarding::SNAT, "snat"),
    ];
    let value = json!({
        "key": key.to_string(),
        "vip": row.vip.to_string(),
        "real": flow.real,
        "generation": flow.generation,
        "counter": flow.counter,
        "state": bits(flow.state.into(), &state.map(|(bit, word)| (bit.into(), word))),
        "forwarding": bits(flow.forwarding.into(), &forwarding.map(|(bit, word)| (bit.into(), word))),
        "client": row.client.map(|client| client.to_string()),
        "client_port": u16::from_be_bytes(flow.client_port),
        "hop": row.hop,
        "last_seen_jiffies": flow.last_seen,
        "refreshed_jiffies": flow.refreshed,
        "idle_s": row.idle.as_secs(),
    });
    (key, value)
}

/// Bits of what `VIPS` says.
const VIP_WORDS: [(u32, &str); 2] =
    [(vip_flags::CLASSES_AGREE, "classes_agree"), (vip_flags::PROXIED, "proxied")];

/// An element of an array of `len`, read while `epoch` was current.
fn array_row(index: u32, element: &Element, len: u32, epoch: u64) -> Value {
    let capacity = len / 2;
    let id = index % capacity.max(1);
    let half = if u64::from(index / capacity.max(1)) == epoch & 1 { "current" } else { "other" };
    match element {
        Element::Epoch(epoch) => json!({"key": index, "epoch": epoch, "half": epoch & 1}),
        Element::Settings(settings) => json!({
            "key": index,
            "abi_version": settings.abi_version,
            "ready": settings.ready,
            "gone_reset_ns": settings.gone_reset_ns,
            "new_flows": settings.new_flows,
            "vips": settings.vips,
            "sources": settings.sources,
            "routes": settings.routes,
            "hz": settings.hz,
            "base_jiffies": settings.base_jiffies,
            "base_ns": settings.base_ns,
            "l7_reset": settings.l7_reset,
            "shards": settings.shards,
            "mark_handed": settings.mark_handed,
            "mark_own": settings.mark_own,
            "proxy_table": settings.proxy_table,
        }),
        Element::Ports(word) => {
            let ports = |shift: u32| -> Vec<u32> {
                (0..32)
                    .filter(|p| word >> (p * 2 + shift) & 1 == 1)
                    .map(|p| index * 32 + p)
                    .collect()
            };
            json!({"key": index, "vip_ports": ports(0), "real_ports": ports(1)})
        }
        Element::ReplyPorts(word) => {
            let ports: Vec<u32> =
                (0..64).filter(|p| word >> p & 1 == 1).map(|p| index * 64 + p).collect();
            json!({"key": index, "ports": ports})
        }
        Element::Vip(vip) => json!({
            "key": index, "id": id, "half": half,
            "route": vip.route,
            "flags": bits(vip.flags, &VIP_WORDS),
        }),
        Element::Source(source) => json!({
            "key": index, "id": id, "half": half,
            "class": source.class,
            "ifindex": source.ifindex,
        }),
        Element::Route(route) => route_row(index, id, half, route),
        Element::Chunk(map) => json!({
            "key": index,
            "map_id": map,
            "first_word": u64::from(index) * CHUNK_WORDS as u64,
            "words": CHUNK_WORDS,
        }),
        Element::Real(real) => json!({
            "key": index,
            "address": real_address(real).map(|address| address.to_string()),
            "generation": real.generation,
            "flags": bits(real.flags, &[(real_flags::GONE, "gone")]),
            "gone_at_ns": real.gone_at_ns,
        }),
        Element::Active(connections) => json!({"key": index, "connections": connections}),
        Element::Turns(turns) => json!({"key": index, "turns": turns}),
        Element::NewFlows(cpus) => json!({
            "key": index,
            "cpus": cpus
                .iter()
                .map(|cpu| json!({"used": cpu.used, "at_jiffies": cpu.at}))
                .collect::<Vec<_>>(),
        }),
        Element::Counter(counter) => json!({
            "key": index,
            "connections": counter.connections,
            "packets_in": counter.packets_in,
            "bytes_in": counter.bytes_in,
            "packets_out": counter.packets_out,
            "bytes_out": counter.bytes_out,
        }),
        Element::Reason(packets) => json!({
            "key": index,
            "reason": Reason::ALL.get(index as usize).map(|reason| reason.name()),
            "packets": packets,
        }),
        Element::Trace(trace) => json!({
            "key": index,
            "until_ns": trace.until_ns,
            "reasons": Reason::ALL
                .iter()
                .filter(|reason| trace.reasons & reason.bit() != 0)
                .map(|reason| reason.name())
                .collect::<Vec<_>>(),
            "sample": trace.sample,
            "interval_ns": trace.interval_ns,
            "ahead_ns": trace.ahead_ns,
        }),
        Element::Hops(hops) => json!({
            "key": index,
            "until_jiffies": hops.until,
            "generation": hops.generation,
        }),
        Element::NextHop(hop) => json!({
            "key": index,
            "interface": hop.key.interface,
            "to": ethernet_text(hop.key.to),
            "from": ethernet_text(hop.key.from),
            "mtu": hop.mtu,
        }),
        Element::SnatPorts(ports) => json!({
            "key": index,
            "first": ports.first,
            "count": ports.count,
        }),
        Element::Traced(traced) => json!({
            "key": index,
            "used_until_ns": traced.used_until_ns,
            "told": traced.told,
            "left_out": traced.left_out,
            "limited": traced.limited,
            "full": traced.full,
        }),
    }
}

fn route_row(index: u32, id: u32, half: &str, route: &RouteEntry) -> Value {
    let kind = word(
        route.kind,
        &[
            (route_kind::NONE, "none"),
            (route_kind::INHERIT, "inherit"),
            (route_kind::TABLE, "table"),
            (route_kind::DENY, "deny"),
        ],
    );
    let pick = word(
        route.pick,
        &[
            (pick::HASH, "hash"),
            (pick::RANDOM, "random"),
            (pick::ROUND_ROBIN, "round_robin"),
            (pick::LEAST_REQUEST, "least_request"),
        ],
    );
    let flags = [
        (route_flags::HASH_SOURCE_ONLY.into(), "hash_source_only"),
        (route_flags::PROXY.into(), "proxy"),
    ];
    json!({
        "key": index, "id": id, "half": half,
        "kind": kind,
        "pick": pick,
        "flags": bits(route.flags.into(), &flags),
        "choices": route.choices,
        "counters": route.counters,
        "table": table(&route.table),
        "previous": table(&route.previous),
        "previous_counters": route.previous_counters,
        "counted": route.counted,
        "previous_until_ns": route.previous_until_ns,
    })
}

/// `{}`: no table.
fn table(table: &Table) -> Value {
    if *table == Table::default() {
        return json!({});
    }
    json!({
        "offset": table.offset,
        "slots": table.slots,
        "targets": table.targets,
        "backends": table.backends,
    })
}

/// The name of a value, or the number that has none.
fn word(value: u8, names: &[(u8, &str)]) -> String {
    names
        .iter()
        .find(|(known, _)| *known == value)
        .map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

/// The names of the bits that are set; those without a name as one number.
fn bits(value: u32, names: &[(u32, &str)]) -> Vec<String> {
    let mut set: Vec<String> = names
        .iter()
        .filter(|(bit, _)| value & bit != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    let unnamed = names.iter().fold(value, |rest, (bit, _)| rest & !bit);
    if unnamed != 0 {
        set.push(format!("{unnamed:#x}"));
    }
    set
}
