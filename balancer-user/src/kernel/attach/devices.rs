//! `DEVICES` and `SNAT`: what the programs know of interfaces with programs of ours.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::{DEVICES_MAX, Device, SnatPorts, map_names};
use zerocopy::FromBytes as _;

use super::{
    super::{
        KernelError, hops,
        layout::Pins,
        map_failed,
        mapped::{Access, Mapped},
        netlink, read,
        view::mapped,
    },
    Hook, Link, all_links,
};

/// The ports of [`Settings`](crate::settings::Settings), for whoever has none.
pub(super) const DEFAULT_PORTS: SnatPorts = SnatPorts { first: 61_000, count: 4_536 };

/// Whether flows that begin at interfaces are to have the node's source, by index.
pub(super) type Asked = BTreeMap<u32, bool>;

/// Index of an interface, and what the map says of it.
type Devices = BTreeMap<u32, Device>;

/// Tells the programs what is about to be asked of interfaces, before they are attached to. What was
/// asked of those before.
pub(super) fn announce(
    pins: &Pins,
    asked: &Asked,
    ports: Option<SnatPorts>,
) -> Result<Asked, KernelError> {
    let present = present(pins)?;
    let before = asked.keys().map(|index| (*index, asks(&present, *index))).collect();
    let mut wanted = present.clone();
    for (index, snat) in asked {
        wanted.entry(*index).or_default().snat = u32::from(*snat);
    }
    write(pins, &present, wanted, ports)?;
    Ok(before)
}

/// Tells the programs which interfaces have one of theirs, which of those take frames, which
/// addresses the node has there, and where flows begin whose reals see those: as asked, else as
/// before. `ports`: `None` leaves them as they are.
pub(super) fn note(
    pins: &Pins,
    asked: &Asked,
    ports: Option<SnatPorts>,
) -> Result<(), KernelError> {
    let addresses = Addresses::list()?;
    let indexes: BTreeMap<String, u32> =
        netlink::interfaces()?.into_iter().map(|one| (one.name, one.index)).collect();
    let present = present(pins)?;
    let mut wanted = Devices::new();
    for Link { interface, hook, .. } in all_links(pins)?.into_iter().filter(|link| link.live) {
        let Some(index) = indexes.get(&interface).copied() else { continue };
        let device = wanted.entry(index).or_insert_with(|| {
            let Own { four, six } = addresses.of(&interface);
            Device {
                takes_frames: 0,
                source4: four.map_or([0; 4], |addr| addr.octets()),
                source6: six.map_or([0; 16], |addr| addr.octets()),
                snat: asked.get(&index).copied().unwrap_or_else(|| asks(&present, index)).into(),
            }
        });
        device.takes_frames |= u32::from(hook == Hook::Xdp);
    }
    write(pins, &present, wanted, ports)
}

/// Changes the ports, where any interface asks for them. True: they were others.
pub(super) fn set_ports(pins: &Pins, ports: SnatPorts) -> Result<bool, KernelError> {
    let map = ports_map(pins)?;
    let before: SnatPorts = map.read(0);
    if before.count == 0 || before == ports {
        return Ok(false);
    }
    map.store_release(0, zerocopy::transmute!(ports));
    Ok(true)
}

fn asks(devices: &Devices, index: u32) -> bool {
    devices.get(&index).is_some_and(|device| device.snat != 0)
}

fn open(pins: &Pins) -> Result<MapData, KernelError> {
    let name = map_names::DEVICES;
    MapData::from_pin(pins.map(name)).map_err(|e| map_failed(name, e))
}

fn ports_map(pins: &Pins) -> Result<Mapped, KernelError> {
    let name = map_names::SNAT;
    let map = MapData::from_pin(pins.map(name)).map_err(|e| map_failed(name, e))?;
    mapped(name, &map, Access::Write)
}

fn present(pins: &Pins) -> Result<Devices, KernelError> {
    let mut present = Devices::new();
    read::each_raw(map_names::DEVICES, &open(pins)?, |key, value| {
        if let (Ok(key), Ok(device)) = (<[u8; 4]>::try_from(key), Device::read_from_bytes(value)) {
            present.insert(u32::from_ne_bytes(key), device);
        }
    })?;
    Ok(present)
}

/// Those for which there is room, first what cannot do without an element.
fn fitting(wanted: Devices) -> Result<Devices, KernelError> {
    if wanted.len() <= DEVICES_MAX {
        return Ok(wanted);
    }
    let needed = |device: &Device| device.takes_frames != 0 || device.snat != 0;
    let most = wanted.values().filter(|device| needed(device)).count();
    if most > DEVICES_MAX {
        return Err(KernelError::DevicesFull { wanted: most });
    }
    let mut sorted: Vec<_> = wanted.into_iter().collect();
    sorted.sort_by_key(|(index, device)| (Reverse(needed(device)), *index));
    sorted.truncate(DEVICES_MAX);
    Ok(sorted.into_iter().collect())
}

fn write(
    pins: &Pins,
    present: &Devices,
    wanted: Devices,
    ports: Option<SnatPorts>,
) -> Result<(), KernelError> {
    let failed = |e| map_failed(map_names::DEVICES, e);
    let wanted = fitting(wanted)?;
    let element = ports_map(pins)?;
    let before: SnatPorts = element.read(0);
    let kept = if before.count == 0 { DEFAULT_PORTS } else { before };
    let after = match wanted.values().any(|device| device.snat != 0) {
        true => ports.unwrap_or(kept),
        false => SnatPorts::default(),
    };
    // Flows take a port at once where an interface asks: the ports are there before, and gone after.
    if after.count != 0 && after != before {
        element.store_release(0, zerocopy::transmute!(after));
    }
    let map = HashMap::<_, u32, [u8; size_of::<Device>()]>::try_from(Map::HashMap(open(pins)?));
    let mut map = map.map_err(failed)?;
    for gone in present.keys().filter(|index| !wanted.contains_key(index)) {
        map.remove(gone).map_err(failed)?;
    }
    let changed = *present != wanted;
    for (index, device) in wanted {
        if present.get(&index) != Some(&device) {
            let device: [u8; size_of::<Device>()] = zerocopy::transmute!(device);
            map.insert(index, device, 0).map_err(failed)?;
        }
    }
    if after.count == 0 && before.count != 0 {
        element.store_release(0, 0);
    }
    // After XDP would not send there any more: flows remember that it did.
    if changed { hops::forget_pinned(pins) } else { Ok(()) }
}

/// The first address of each family that the node has at an interface and that means the same
/// everywhere.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    four: Option<Ipv4Addr>,
    six: Option<Ipv6Addr>,
}

/// Addresses of all interfaces, listed once: there may be a thousand.
struct Addresses(BTreeMap<String, Own>);

impl Addresses {
    fn list() -> Result<Self, KernelError> {
        let all = nix::ifaddrs::getifaddrs()
            .map_err(|e| KernelError::system("listing addresses of interfaces", e.into()))?;
        let mut of: BTreeMap<String, Own> = BTreeMap::new();
        for row in all {
            let Some(address) = row.address else { continue };
            let own = of.entry(row.interface_name).or_default();
            if let Some(found) = address.as_sockaddr_in()
                && !found.ip().is_link_local()
            {
                own.four = own.four.or(Some(found.ip()));
            }
            if let Some(found) = address.as_sockaddr_in6()
                && !found.ip().is_unicast_link_local()
            {
                own.six = own.six.or(Some(found.ip()));
            }
        }
        Ok(Self(of))
    }

    fn of(&self, interface: &str) -> Own {
        self.0.get(interface).copied().unwrap_or_default()
    }
}

/// What a person should know of tunnels that are to begin at an interface.
///
/// # Errors
/// The kernel does not say which addresses there are.
pub fn without_source(interface: &str) -> Result<Vec<String>, KernelError> {
    let Own { four, six } = Addresses::list()?.of(interface);
    let there = [(four.is_some(), "IPv4"), (six.is_some(), "IPv6")];
    let missing = there.into_iter().filter(|(there, _)| !there);
    Ok(missing
        .map(|(_, family)| {
            format!(
                "dsr-ipip on {interface}: the interface has no {family} address for tunnels to \
                 begin at, so {family} packets to VIPs are left to the hook tc, which translates \
                 them; give it one"
            )
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_beyond_the_room_are_those_that_can_do_without() {
        let plain = Device { source4: [10, 0, 0, 1], ..Device::default() };
        let asking = Device { snat: 1, ..plain };
        let most = DEVICES_MAX as u32;
        let mut wanted: Devices = (1..=most).map(|index| (index, plain)).collect();
        assert_eq!(fitting(wanted.clone()).expect("room"), wanted);
        wanted.insert(most + 1, asking);
        let kept = fitting(wanted).expect("room for one that needs it");
        assert_eq!(kept.len(), DEVICES_MAX);
        assert_eq!((kept.get(&(most + 1)), kept.get(&most)), (Some(&asking), None));
        let full = (0..=most).map(|index| (index, asking)).collect();
        let error = fitting(full).expect_err("no room").to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
    }
}
