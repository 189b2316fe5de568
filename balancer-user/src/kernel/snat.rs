//! Source translation: where it is asked for, and what a person should know of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    ops::RangeInclusive,
};

use balancer_ebpf::abi::{Device, SnatPorts};

use super::{Asked, KernelError, View, interfaces, netlink};

/// Where source translation is asked for, and with which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snat {
    /// What reals see as their clients' ports.
    pub ports: RangeInclusive<u16>,
    /// Interfaces at which such flows begin, sorted.
    pub interfaces: Vec<String>,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatFinding {
    /// What, and why it matters.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// How many interfaces a message names.
const NAMED: usize = 4;

impl View {
    /// What the programs take ports from.
    pub(crate) fn snat_ports(&self) -> SnatPorts {
        self.snat.read(0)
    }

    /// Whether any interface asks for source translation, and which.
    ///
    /// # Errors
    /// A system call on the map failed, or the kernel does not list interfaces.
    pub fn snat(&self) -> Result<Option<Snat>, KernelError> {
        let SnatPorts { first, count } = self.snat_ports();
        if count == 0 {
            return Ok(None);
        }
        let present = interfaces()?;
        let asking = self.devices()?.into_iter().filter(|(_, device)| device.snat != 0);
        let name = |index: u32| {
            let found = present.iter().find(|interface| interface.index == index);
            found.map_or_else(|| format!("(index {index})"), |interface| interface.name.clone())
        };
        let mut interfaces: Vec<String> = asking.map(|(index, _)| name(index)).collect();
        interfaces.sort();
        let last = first.saturating_add(count - 1).min(u16::MAX.into());
        Ok(Some(Snat { ports: first as u16..=last as u16, interfaces }))
    }

    /// What stands in the way of flows with source translation, and who misses their packets;
    /// nothing where nobody asks for any.
    ///
    /// # Errors
    /// As [`View::snat`], or a setting of the kernel cannot be read.
    pub fn snat_findings(&self) -> Result<Vec<SnatFinding>, KernelError> {
        let Some(Snat { ports, interfaces: asking }) = self.snat()? else { return Ok(Vec::new()) };
        let mut findings = Vec::new();
        let local = setting("ip_local_port_range")?;
        let reserved = setting("ip_local_reserved_ports")?;
        findings.extend(overlap(&ports, &local, &reserved));
        findings.extend(self.out_of_reach()?);
        let stack = self.forwarding()?.asked == Asked::Stack;
        for one in self.hooked()?.judge(Asked::Direct) {
            if !asking.contains(&one.interface) {
                continue;
            }
            let missed: Vec<String> =
                one.obstacles.iter().filter(|o| !o.is_final()).map(ToString::to_string).collect();
            findings.extend(past_the_stack(&one.interface, stack, &missed));
        }
        Ok(findings)
    }

    /// What keeps packets from reals: at the interface by which they would leave the node needs an
    /// address that the programs know of.
    fn out_of_reach(&self) -> Result<Vec<SnatFinding>, KernelError> {
        let reals = self.reals()?.into_iter().filter(|real| real.gone_for.is_none());
        let addresses: BTreeSet<IpAddr> = reals.map(|real| real.addr.ip()).collect();
        let devices: BTreeMap<u32, Device> = self.devices()?.into_iter().collect();
        let links = self.links()?;
        let present = interfaces()?;
        let mut lost: BTreeMap<Lost, Behind> = BTreeMap::new();
        for (address, way) in netlink::ways(addresses.into_iter().take(ASKED_MAX))? {
            // `status` names those without a route.
            let Some(way) = way else { continue };
            let Some(interface) = present.iter().find(|one| one.index == way) else { continue };
            let attached = links.iter().any(|link| link.live && link.interface == interface.name);
            let why = match devices.get(&way) {
                _ if interface.loopback => Lost::Local,
                Some(device) if address.is_ipv4() && device.source4 == [0; 4] => Lost::NoIpv4,
                Some(device) if address.is_ipv6() && device.source6 == [0; 16] => Lost::NoIpv6,
                Some(_) => continue,
                None if attached => Lost::NoRoom,
                None => Lost::NotAttached,
            };
            let behind = lost.entry(why).or_default();
            behind.first.get_or_insert(address);
            behind.interfaces.insert(interface.name.clone());
        }
        Ok(lost.into_iter().filter_map(|(why, behind)| why.told(&behind)).collect())
    }
}

/// How many addresses of reals are looked at: each is a question to the kernel.
const ASKED_MAX: usize = 1_000;

/// Why packets do not reach a real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    /// No such address of the node at the interface.
    NoIpv4,
    NoIpv6,
    /// No program of ours is there.
    NotAttached,
    /// There are too many interfaces.
    NoRoom,
    /// The real is the node.
    Local,
}

/// Reals that packets do not reach, and the interfaces by which they would leave.
#[derive(Debug, Default)]
struct Behind {
    first: Option<IpAddr>,
    interfaces: BTreeSet<String>,
}

impl Lost {
    fn told(self, behind: &Behind) -> Option<SnatFinding> {
        let (real, interface) = (behind.first?, behind.interfaces.first()?);
        let names: Vec<&str> = behind.interfaces.iter().map(String::as_str).collect();
        let names = list(&names);
        let (why, hint) = match self {
            Self::NoIpv4 | Self::NoIpv6 => {
                let family = if self == Self::NoIpv4 { "IPv4" } else { "IPv6" };
                (
                    format!("the node has no {family} address at {names}"),
                    format!("ip address add ADDRESS dev {interface}"),
                )
            }
            Self::NotAttached => (
                format!("no program of balancer is at {names}"),
                format!("attach to it: --attach {interface}=tc, or an entry of `attach`"),
            ),
            Self::NoRoom => (
                format!("DEVICES has no room for {names}"),
                format!("attach to {} interfaces at most", balancer_ebpf::abi::DEVICES_MAX),
            ),
            Self::Local => (
                "reals have addresses of the node itself".to_owned(),
                "leave `snat` out where clients of theirs come in".to_owned(),
            ),
        };
        let message = format!(
            "snat: {why}: flows to the reals there, {real} for one, are dropped (snat_failed)"
        );
        Some(SnatFinding { message, hint })
    }
}

fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// Who misses packets of flows that begin at an interface.
fn past_the_stack(interface: &str, stack: bool, missed: &[String]) -> Option<SnatFinding> {
    let what = match (stack, missed) {
        (false, []) => return None,
        (true, []) => "although `forwarding` is `stack`".to_owned(),
        (true, missed) => {
            format!("although `forwarding` is `stack`, and past this: {}", missed.join("; "))
        }
        (false, missed) => format!("and past this: {}", missed.join("; ")),
    };
    Some(SnatFinding {
        message: format!("snat on {interface}: flows that begin there go past the stack, {what}"),
        hint: "nothing, if no rule is to see them; else leave `snat` out, and give reals a route \
               back by this node"
            .to_owned(),
    })
}

/// Whether the node's own connections may have ports of the range. `local`: `ip_local_port_range`,
/// `reserved`: `ip_local_reserved_ports` (Documentation/networking/ip-sysctl.rst).
fn overlap(ports: &RangeInclusive<u16>, local: &str, reserved: &str) -> Option<SnatFinding> {
    let mut ends = local.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let own = ends.next()?..=ends.next()?;
    let reserved: Vec<RangeInclusive<u16>> = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .collect();
    let mut shared = ports.clone().filter(|port| own.contains(port));
    let taken = shared.find(|port| !reserved.iter().any(|range| range.contains(port)));
    taken.map(|_| {
        let (first, last) = (ports.start(), ports.end());
        SnatFinding {
            message: format!(
                "snat: its ports {first}-{last} overlap those of the node's own connections, {}-{} \
                 (net.ipv4.ip_local_port_range): answers to one of these could be taken for answers \
                 to a client",
                own.start(),
                own.end()
            ),
            hint: format!(
                "write other `ports` below `snat`, or \
                 sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}"
            ),
        }
    })
}

/// A setting of the calling thread's network namespace; empty where the kernel has none.
fn setting(name: &str) -> Result<String, KernelError> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(KernelError::system(format!("reading {path}"), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_the_node_may_use_itself_are_told_unless_reserved() {
        let range = 61_000..=65_535;
        let told = |local, reserved| overlap(&range, local, reserved).map(|found| found.message);
        assert_eq!(told("32768\t60999\n", "\n"), None);
        assert_eq!(told("", ""), None, "no such setting");
        for reserved in ["61000-65535\n", "1-5,61000-63000,63001-65535", "60000-65535"] {
            assert_eq!(told("32768 65535", reserved), None, "{reserved}");
        }
        for (local, reserved) in [
            ("32768 61000", "\n"),
            ("1024 65535", "8080,61000-65534"),
            ("65535 65535", "61000-65534"),
        ] {
            let message = told(local, reserved).unwrap_or_else(|| panic!("{local}, {reserved}"));
            assert!(message.contains("61000-65535"), "{message}");
        }
    }

    #[test]
    fn who_misses_packets_is_told_of_each_interface() {
        let told = |stack, missed: &[&str]| {
            let missed: Vec<String> = missed.iter().map(|&one| one.to_owned()).collect();
            past_the_stack("eth0", stack, &missed).map(|found| found.message)
        };
        assert_eq!(told(false, &[]), None);
        let begin = "snat on eth0: flows that begin there go past the stack, ";
        assert_eq!(told(true, &[]), Some(format!("{begin}although `forwarding` is `stack`")));
        assert_eq!(
            told(false, &["conntrack follows connections", "a policy of IPsec"]),
            Some(format!("{begin}and past this: conntrack follows connections; a policy of IPsec"))
        );
        let both = told(true, &["a policy of IPsec"]).expect("a finding");
        assert!(both.ends_with("is `stack`, and past this: a policy of IPsec"), "{both}");
    }

    #[test]
    fn real_out_of_reach_is_named_with_the_interface_and_what_to_do() {
        let interfaces = ["eth0", "eth1"].map(str::to_owned).into();
        let behind = Behind { first: "10.0.0.1".parse().ok(), interfaces };
        for (why, message, hint) in [
            (Lost::NoIpv4, "the node has no IPv4 address at eth0, eth1: ", "ADDRESS dev eth0"),
            (Lost::NoIpv6, "the node has no IPv6 address at eth0, eth1: ", "ADDRESS dev eth0"),
            (Lost::NotAttached, "no program of balancer is at eth0, eth1: ", "--attach eth0=tc"),
            (Lost::NoRoom, "DEVICES has no room for eth0, eth1: ", "1024"),
            (Lost::Local, "addresses of the node itself: ", "leave `snat` out"),
        ] {
            let found = why.told(&behind).expect("a finding");
            assert!(found.message.contains(message), "{}", found.message);
            assert!(found.message.contains("10.0.0.1 for one"), "{}", found.message);
            assert!(found.hint.contains(hint), "{}", found.hint);
        }
    }

    #[test]
    fn a_message_names_some_of_many_interfaces() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a", "b", "c", "d", "e", "f"]), "a, b, c, d and 2 more");
    }
}
