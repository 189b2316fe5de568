//! `balancer status`: what is loaded and attached, how full it is, what stands in its way.

use std::{collections::BTreeSet, fmt::Write as _, fs, num::NonZeroU32};

use serde::Serialize;

use super::{
    args::{Form, Global},
    failure::Failure,
    forwarding::Told,
    inputs,
    load::LinkLine,
    output::{self, columns},
    requirements, snat,
    status_agent::{self, AgentLine},
};
use crate::kernel::{self, Datapath, KernelError, SnatFinding, View, XdpMode};

pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    if global.output == Form::Hosts {
        return Err(output::hosts_refused());
    }
    let bpffs = global.bpffs(None);
    let mut status = Status {
        loaded: false,
        epoch: None,
        bpffs: bpffs.display().to_string(),
        state: global.state(None).display().to_string(),
        kernel: requirements::release()?,
        agent: status_agent::read(&global.state(None))?,
        programs: Vec::new(),
        links: Vec::new(),
        forwarding: None,
        snat: None,
        foreign: Vec::new(),
        maps: Vec::new(),
        new_flows_limit: None,
        features: Vec::new(),
        findings: Vec::new(),
    };
    let failed = |error| inputs::kernel(error, "cannot read the status");
    let mut links = Vec::new();
    match Datapath::open_read_only(&bpffs) {
        Ok(view) => {
            links = status.read(&view).map_err(failed)?;
            status.look_at_reals(&view).map_err(failed)?;
        }
        Err(KernelError::NotLoaded { .. }) => {}
        Err(error) => return Err(failed(error)),
    }
    status.look_at_kernel(&links).map_err(failed)?;
    status.look_at_node()?;
    output::value(global.output, &status, text)
}

#[derive(Serialize)]
struct Status {
    loaded: bool,
    /// 0: nothing was published yet.
    epoch: Option<u64>,
    bpffs: String,
    state: String,
    /// Release of the running kernel.
    kernel: String,
    /// `null`: none ever ran with this state directory.
    agent: Option<AgentLine>,
    programs: Vec<ProgramLine>,
    links: Vec<Link>,
    /// `null`: nothing is loaded.
    forwarding: Option<Told>,
    /// `null`: no interface asks for it, or nothing is loaded.
    snat: Option<snat::Told>,
    /// Programs of others on the same interfaces.
    foreign: Vec<Foreign>,
    maps: Vec<MapLine>,
    /// New flows that each CPU records a second; `null`: any number, or nothing is loaded.
    new_flows_limit: Option<NonZeroU32>,
    /// What balancer can do without, and whether something else is used.
    features: Vec<FeatureLine>,
    /// What would keep packets from arriving.
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct ProgramLine {
    program: String,
    id: u32,
    /// Hash of the instructions, as bpftool prints it.
    tag: String,
}

#[derive(Serialize)]
struct Link {
    #[serde(flatten)]
    place: LinkLine,
    /// The interface is still there.
    live: bool,
}

#[derive(Serialize)]
struct Foreign {
    #[serde(flatten)]
    place: LinkLine,
    program: String,
    id: u32,
}

#[derive(Serialize)]
struct MapLine {
    map: &'static str,
    used: u64,
    capacity: u64,
    setting: &'static str,
}

#[derive(Serialize)]
struct FeatureLine {
    feature: &'static str,
    /// This kernel has it.
    here: bool,
    /// `yes`, or what is used instead.
    used: String,
}

/// Something that a person should look at.
#[derive(Serialize)]
struct Finding {
    message: String,
    hint: String,
}

impl Status {
    fn read(&mut self, view: &View) -> Result<Vec<kernel::Link>, KernelError> {
        self.loaded = true;
        self.epoch = Some(view.epoch());
        self.new_flows_limit = view.new_flows();
        self.programs = view
            .programs()?
            .into_iter()
            .map(|row| ProgramLine {
                program: row.name,
                id: row.id,
                tag: format!("{:016x}", row.tag),
            })
            .collect();
        let links = view.links()?;
        let present = kernel::interfaces()?;
        for link in &links {
            if !link.live {
                self.finding(
                    format!("{} is not in this network namespace any more", link.interface),
                    format!("balancer load -f PATH --attach {}=tc", link.interface),
                );
            }
            let mode = link.mode.unwrap_or_default();
            if link.live && link.hook == kernel::Hook::Xdp {
                let veth = present.iter().any(|i| i.name == link.interface && i.veth);
                if veth {
                    let instead = match mode {
                        XdpMode::Nat => format!("{}=tc", link.interface),
                        mode => kernel::xdp_generic_by_name(&link.interface, mode),
                    };
                    self.finding(
                        kernel::xdp_on_veth(&link.interface, mode),
                        format!("balancer load -f PATH --attach {instead}"),
                    );
                }
            }
            if link.live && mode == XdpMode::DsrIpip {
                for message in kernel::tunnels_without_source(&link.interface)? {
                    let hint = format!("ip address add ADDRESS dev {}", link.interface);
                    self.finding(message, hint);
                }
            }
            let place = LinkLine::of(link);
            self.links.push(Link { place, live: link.live });
        }
        let agent_runs = self.agent.as_ref().is_some_and(|agent| agent.running);
        let forwarding = Told::live(view, agent_runs)?;
        for (message, hint) in forwarding.findings(agent_runs) {
            self.finding(message, hint);
        }
        self.forwarding = Some(forwarding);
        self.snat = view.snat()?.map(snat::Told::from);
        for SnatFinding { message, hint } in view.snat_findings()? {
            self.finding(message, hint);
        }
        self.foreign = view
            .foreign_programs()?
            .into_iter()
            .map(|row| Foreign {
                place: LinkLine::new(&row.interface, row.direction, row.hook),
                program: row.name,
                id: row.program,
            })
            .collect();
        for row in view.fill()? {
            // Flow tables throw out their oldest entries: full is how they are after a while.
            let flows = row.setting.ends_with("flows") || row.setting.ends_with("half_open");
            if !flows && row.used.saturating_mul(10) >= row.capacity.saturating_mul(9) {
                self.finding(
                    format!("{} holds {} of {}", row.name, row.used, row.capacity),
                    format!(
                        "raise {} in the configuration file, balancer unload, balancer load --config",
                        row.setting
                    ),
                );
            }
            self.maps.push(MapLine {
                map: row.name,
                used: row.used,
                capacity: row.capacity,
                setting: row.setting,
            });
        }
        Ok(links)
    }

    /// Whether the kernel has a way to each real. A real that is gone needs none.
    fn look_at_reals(&mut self, view: &View) -> Result<(), KernelError> {
        /// More than these take `status` longer than anybody waits for it.
        const ASKED_MAX: usize = 10_000;
        let reals = view.reals()?.into_iter().filter(|real| real.gone_for.is_none());
        let addresses: BTreeSet<_> = reals.map(|real| real.addr.ip()).collect();
        let asked = addresses.len().min(ASKED_MAX);
        let without = kernel::without_route(addresses.iter().copied().take(asked))?;
        if let Some(first) = without.first() {
            let of = if asked == addresses.len() { "" } else { "the first " };
            self.finding(
                format!(
                    "no route to {} of {of}{asked} addresses of reals, to {first} for one: packets to \
                     them are lost",
                    without.len()
                ),
                format!("ip route get {first}"),
            );
        }
        Ok(())
    }

    fn look_at_kernel(&mut self, links: &[kernel::Link]) -> Result<(), KernelError> {
        for (feature, here, used) in kernel::requirements::fall_backs(links)? {
            self.features.push(FeatureLine { feature: feature.name(), here, used });
        }
        Ok(())
    }

    fn finding(&mut self, message: String, hint: String) {
        if !self.findings.iter().any(|finding| finding.message == message) {
            self.findings.push(Finding { message, hint });
        }
    }

    /// The node's own settings, which balancer never changes.
    fn look_at_node(&mut self) -> Result<(), Failure> {
        for (key, what) in [("ipv4/ip_forward", "IPv4"), ("ipv6/conf/all/forwarding", "IPv6")] {
            if sysctl(key)?.is_some_and(|value| value == 0) {
                let name = key.replace('/', ".");
                self.finding(
                    format!("net.{name} is 0: translated {what} packets are not forwarded"),
                    format!("sysctl -w net.{name}=1"),
                );
            }
        }
        let mut names: Vec<String> =
            self.links.iter().map(|link| link.place.interface.clone()).collect();
        names.dedup();
        // The stricter of the two holds (Documentation/networking/ip-sysctl.rst).
        let all = sysctl("ipv4/conf/all/rp_filter")?.unwrap_or(0);
        for name in names {
            // A name may hold dots; the path may not, so this is no key that sysctl(8) splits.
            let own = sysctl(&format!("ipv4/conf/{name}/rp_filter"))?.unwrap_or(0);
            if all.max(own) == 1 {
                self.finding(
                    format!(
                        "rp_filter is strict on {name}: packets whose source is not routed back \
                         through it are dropped"
                    ),
                    format!("sysctl -w net/ipv4/conf/{name}/rp_filter=2, if routes are asymmetric"),
                );
            }
        }
        Ok(())
    }
}

/// A number below `/proc/sys/net`; `None` where the kernel has no such key (IPv6 may be off).
fn sysctl(key: &str) -> Result<Option<u32>, Failure> {
    let path = format!("/proc/sys/net/{key}");
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|error| Failure::system(error, format!("{path} holds `{}`", text.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::system(error, format!("cannot read {path}"))),
    }
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match status.epoch {
        None => writeln!(text, "nothing is loaded at {}", status.bpffs),
        Some(0) => writeln!(text, "loaded at {}, but nothing is published", status.bpffs),
        Some(epoch) => writeln!(text, "loaded at {}, epoch {epoch}", status.bpffs),
    };
    let _ = writeln!(text, "state in {}, kernel {}", status.state, status.kernel);
    let mut part = |title: &str, lines: Vec<Vec<String>>, right: &[bool]| {
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}\n{}", indented(&columns(&lines, right)));
        }
    };
    let place = |place: &LinkLine| {
        vec![place.interface.clone(), place.direction.to_owned(), place.hook_and_mode()]
    };
    let agent = status.agent.iter().flat_map(AgentLine::lines).map(|line| vec![line]).collect();
    part("Agent", agent, &[]);
    part(
        "Programs",
        status
            .programs
            .iter()
            .map(|row| {
                vec![row.program.clone(), format!("id {}", row.id), format!("tag {}", row.tag)]
            })
            .collect(),
        &[],
    );
    part(
        "Attached",
        status
            .links
            .iter()
            .map(|link| {
                let mut cells = place(&link.place);
                cells.push(if link.live { String::new() } else { "interface is gone".to_owned() });
                cells
            })
            .collect(),
        &[],
    );
    if let Some(forwarding) = &status.forwarding {
        part(&format!("Forwarding ({})", forwarding.asked()), forwarding.rows(), &[]);
    }
    let rows = status.snat.as_ref().map_or(Vec::new(), snat::Told::rows);
    part("Source translation (snat)", rows, &[]);
    part(
        "Programs of others on these interfaces",
        status
            .foreign
            .iter()
            .map(|row| {
                let mut cells = place(&row.place);
                cells.extend([row.program.clone(), format!("id {}", row.id)]);
                cells
            })
            .collect(),
        &[],
    );
    part(
        "Maps",
        status
            .maps
            .iter()
            .map(|row| {
                vec![
                    row.map.to_owned(),
                    row.used.to_string(),
                    "of".to_owned(),
                    row.capacity.to_string(),
                    row.setting.to_owned(),
                ]
            })
            .collect(),
        &[false, true, false, true],
    );
    let new_flows = match status.new_flows_limit {
        Some(limit) => format!("{limit} a second and CPU, of them half for one VIP"),
        None => "any number".to_owned(),
    };
    let new_flows = vec![vec![new_flows, "limits.new_flows".to_owned()]];
    part("New flows", if status.loaded { new_flows } else { Vec::new() }, &[]);
    part(
        "Kernel",
        status.features.iter().map(|row| vec![format!("{}: {}", row.feature, row.used)]).collect(),
        &[],
    );
    part(
        "Look at",
        status
            .findings
            .iter()
            .flat_map(|finding| {
                [vec![finding.message.clone()], vec![format!("  {}", finding.hint)]]
            })
            .collect(),
        &[],
    );
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
