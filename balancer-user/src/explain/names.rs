//! What people type into `--from` and `--to`, found in the policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Input, QueryError, objects};
use crate::{
    policy::{Dataplane, SERVICE_TAG, Tags, suggest::suggest},
    resolve::{
        Names, Vip, VipKey, VipProtocol,
        gateway::Attachments,
        inventory::Family,
        selection::selector_matches,
        sources::{tag_sets, workload_addresses},
    },
};

/// Candidates that a refusal lists at most.
const CANDIDATES: usize = 5;

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asker<'a> {
    /// A Dataplane, by name.
    Dataplane(&'a Dataplane),
    /// An address, and the Dataplanes that have it.
    Address(IpAddr, Vec<&'a Dataplane>),
    /// Tags, and the Dataplanes that have them all on one inbound.
    Tags(Tags, Vec<&'a Dataplane>),
}

impl<'a> Asker<'a> {
    /// The Dataplanes that it may be.
    pub(super) fn dataplanes(&self) -> Vec<&'a Dataplane> {
        match self {
            Self::Dataplane(dataplane) => vec![dataplane],
            Self::Address(_, dataplanes) | Self::Tags(_, dataplanes) => dataplanes.clone(),
        }
    }

    /// The family of its packets, where only one is possible.
    fn family(&self, names: &Names) -> Option<Family> {
        let addresses: BTreeSet<Family> = match self {
            Self::Address(address, _) => BTreeSet::from([Family::of(*address)]),
            Self::Dataplane(_) | Self::Tags(..) => self
                .dataplanes()
                .into_iter()
                .flat_map(|dataplane| workload_addresses(dataplane, names))
                .map(Family::of)
                .collect(),
        };
        addresses.first().copied().filter(|_| addresses.len() == 1)
    }
}

/// Reads `--from`.
pub(super) fn asker<'a>(input: &Input<'a>, text: &str) -> Result<Asker<'a>, QueryError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        let has = |dataplane: &&Arc<Dataplane>| {
            workload_addresses(dataplane, &input.settings.names).contains(&address)
        };
        return Ok(Asker::Address(address, sorted(input.set.dataplanes.iter().filter(has))));
    }
    if text.contains('=') {
        let tags = parse_tags(text)?;
        let has = |dataplane: &&Arc<Dataplane>| {
            tag_sets([&***dataplane]).iter().any(|own| selector_matches(&tags, own))
        };
        let dataplanes = sorted(input.set.dataplanes.iter().filter(has));
        return Ok(Asker::Tags(tags, dataplanes));
    }
    let (mesh, name) = split_mesh(text);
    let named = |dataplane: &&Arc<Dataplane>| {
        let meta = &dataplane.meta;
        (meta.name == name || meta.display_name == name)
            && mesh.is_none_or(|mesh| meta.mesh == mesh)
    };
    let found = sorted(input.set.dataplanes.iter().filter(named));
    match found.as_slice() {
        [one] => Ok(Asker::Dataplane(one)),
        [] => {
            let known = input.set.dataplanes.iter().map(|dataplane| dataplane.meta.name.as_str());
            let mut candidates: Vec<String> =
                suggest(name, known).into_iter().map(str::to_owned).collect();
            let offers = |dataplane: &Arc<Dataplane>| {
                dataplane
                    .inbounds
                    .iter()
                    .any(|i| i.tags.get(SERVICE_TAG).is_some_and(|s| s == name))
            };
            let is_service = input.set.dataplanes.iter().any(offers);
            if is_service {
                candidates.insert(0, format!("{SERVICE_TAG}={name}"));
            }
            let what = if is_service { " (there is a service of that name)" } else { "" };
            Err(QueryError { message: format!("no Dataplane is named `{text}`{what}"), candidates })
        }
        several => Err(QueryError {
            message: format!("{} Dataplanes are named `{text}`", several.len()),
            candidates: several
                .iter()
                .take(CANDIDATES)
                .map(|dataplane| format!("{}/{}", dataplane.meta.mesh, dataplane.meta.name))
                .collect(),
        }),
    }
}

fn sorted<'a>(dataplanes: impl Iterator<Item = &'a Arc<Dataplane>>) -> Vec<&'a Dataplane> {
    let mut sorted: Vec<&Dataplane> = dataplanes.map(|dataplane| &**dataplane).collect();
    sorted.sort_by_key(|dataplane| (&dataplane.meta.mesh, &dataplane.meta.name));
    sorted
}

fn parse_tags(text: &str) -> Result<Tags, QueryError> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                Ok((key.to_owned(), value.to_owned()))
            }
            _ => Err(QueryError {
                message: format!("`{pair}` in `{text}` is not of the form KEY=VALUE"),
                candidates: Vec::new(),
            }),
        })
        .collect()
}

/// `MESH/NAME`. Names of Dataplanes and services have no slash.
fn split_mesh(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((mesh, name)) => (Some(mesh), name),
        None => (None, text),
    }
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target<'a> {
    /// VIPs that may be meant, all of one service of one mesh and one family. At least one.
    Vips(Vec<&'a Vip>),
    /// An address that is no VIP.
    Elsewhere(SocketAddr),
}

/// Reads `--to`.
pub(super) fn target<'a>(
    input: &Input<'a>,
    attached: &Attachments<'_>,
    asker: &Asker<'a>,
    text: &str,
    protocol: Option<VipProtocol>,
) -> Result<Target<'a>, QueryError> {
    if let Ok(key) = text.parse::<VipKey>() {
        let addr = SocketAddr::new(key.addr.ip().to_canonical(), key.addr.port());
        let key = VipKey { addr, protocol: protocol.unwrap_or(key.protocol) };
        let vip = input.resolved.vips.iter().find(|vip| vip.key == key);
        return Ok(vip.map_or(Target::Elsewhere(addr), |vip| Target::Vips(vec![vip])));
    }
    let vips = &input.resolved.vips;
    // Without a word about it TCP is meant where an address and port has both.
    let is_meant = |vip: &&Vip| match protocol {
        Some(protocol) => vip.key.protocol == protocol,
        None => {
            let tcp = VipKey::tcp(vip.key.addr);
            vip.key == tcp || vips.binary_search_by_key(&tcp, |vip| vip.key).is_err()
        }
    };
    named(input, attached, asker, text, &vips.iter().filter(is_meant).collect::<Vec<_>>())
}

/// The VIPs among `vips` that `text` names otherwise than by address and port.
fn named<'a>(
    input: &Input<'a>,
    attached: &Attachments<'_>,
    asker: &Asker<'a>,
    text: &str,
    vips: &[&'a Vip],
) -> Result<Target<'a>, QueryError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        let at = |vip: &&Vip| vip.key.addr.ip() == address;
        let here: Vec<&Vip> = vips.iter().copied().filter(at).collect();
        return match here.as_slice() {
            [one] => Ok(Target::Vips(vec![one])),
            [] => Err(QueryError {
                message: format!("`{text}` is no VIP; give a port too to ask about any address"),
                candidates: Vec::new(),
            }),
            several => Err(QueryError {
                message: format!("{} VIPs have the address `{text}`", several.len()),
                candidates: addresses(several),
            }),
        };
    }
    let of_tag = known_services(input, None).contains_key(text);
    let of_object = if of_tag { Vec::new() } else { objects::vips(attached, vips, text)? };
    if !of_object.is_empty() {
        return Ok(of_family(asker.family(&input.settings.names), of_object));
    }
    let (mesh, service, port) = service(input, attached, asker, text)?;
    let named = |vip: &&Vip| {
        vip.destination.mesh() == mesh && vip.destination.tag_service() == Some(service)
    };
    let of_service: Vec<&Vip> = vips
        .iter()
        .copied()
        .filter(named)
        .filter(|vip| port.is_none_or(|port| vip.key.addr.port() == port))
        .collect();
    if of_service.is_empty() {
        let others: Vec<&Vip> = vips.iter().copied().filter(named).collect();
        let message = match port {
            Some(port) if !others.is_empty() => {
                format!("service `{service}` has no VIP at port {port}")
            }
            _ => format!(
                "service `{service}` of mesh {mesh} has no VIP: nothing says at which port it is \
                 dialled"
            ),
        };
        return Err(QueryError { message, candidates: addresses(&others) });
    }
    Ok(of_family(asker.family(&input.settings.names), of_service))
}

/// Those that somebody with this family dials: of it, where there is one.
fn of_family(own: Option<Family>, mut vips: Vec<&Vip>) -> Target<'_> {
    let of = |vip: &Vip| Family::of(vip.key.addr.ip());
    let own = own.unwrap_or(Family::V4);
    let there = vips.iter().find(|vip| of(vip) == own).or(vips.first()).map(|vip| of(vip));
    vips.retain(|vip| Some(of(vip)) == there);
    Target::Vips(vips)
}

/// At most a handful of addresses, as they can be typed.
pub(super) fn addresses(vips: &[&Vip]) -> Vec<String> {
    vips.iter().take(CANDIDATES).map(|vip| vip.key.to_string()).collect()
}

/// The mesh, the service and the port that `--to` names. A whole name goes before one with a
/// port at its end, because service names may end in a port themselves.
fn service<'a>(
    input: &Input<'a>,
    attached: &Attachments<'_>,
    asker: &Asker<'a>,
    text: &str,
) -> Result<(&'a str, &'a str, Option<u16>), QueryError> {
    let (mesh, name) = split_mesh(text);
    let known = known_services(input, mesh);
    let with_port = name.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    let found = [Some((name, None)), with_port.map(|(name, port)| (name, Some(port)))]
        .into_iter()
        .flatten()
        .find_map(|(name, port)| {
            let (name, meshes) = known.get_key_value(name)?;
            Some((*name, port, meshes))
        });
    let Some((name, port, meshes)) = found else {
        let wanted = with_port.map_or(name, |(name, _)| name);
        return Err(QueryError {
            message: match mesh {
                Some(mesh) => format!("mesh {mesh} has no service `{name}`"),
                None => format!("no service is named `{name}`"),
            },
            candidates: {
                let objects = objects::names(input, attached);
                let all = known.keys().copied().chain(objects.iter().map(String::as_str));
                // A listener's name has a slash too.
                let wanted = if wanted == name { text } else { wanted };
                suggest(wanted, all).into_iter().map(str::to_owned).collect()
            },
        });
    };
    let of_asker: BTreeSet<&str> =
        asker.dataplanes().iter().map(|dataplane| dataplane.meta.mesh.as_str()).collect();
    let near: Vec<&str> = meshes.intersection(&of_asker).copied().collect();
    let all: Vec<&str> = meshes.iter().copied().collect();
    match if near.is_empty() { all } else { near }.as_slice() {
        [mesh] => Ok((mesh, name, port)),
        several => Err(QueryError {
            message: format!("service `{name}` is in {} meshes", several.len()),
            candidates: several.iter().map(|mesh| format!("{mesh}/{name}")).collect(),
        }),
    }
}

/// Service → the meshes that know it: those with a VIP, and those that somebody offers or calls
/// without one.
fn known_services<'a>(
    input: &Input<'a>,
    mesh: Option<&str>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let with_vip = input
        .resolved
        .vips
        .iter()
        .filter_map(|vip| Some((vip.destination.tag_service()?, vip.destination.mesh())));
    let tagged = input.set.dataplanes.iter().flat_map(|dataplane| {
        let inbounds = dataplane.inbounds.iter().map(|inbound| &inbound.tags);
        let outbounds = dataplane.outbounds.iter().map(|outbound| &outbound.tags);
        let tags = inbounds.chain(outbounds).filter_map(|tags| tags.get(SERVICE_TAG));
        tags.map(|service| (service.as_str(), dataplane.meta.mesh.as_str()))
    });
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (service, of) in with_vip.chain(tagged) {
        if mesh.is_none_or(|mesh| mesh == of) {
            known.entry(service).or_default().insert(of);
        }
    }
    known
}
