//! Who a packet comes from: addresses, their Dataplanes and tags (decision D1).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Names,
    objects::{NAMESPACE_LABEL, namespace},
};
use crate::policy::{Dataplane, Host, Outbound, Tags};

/// An outbound and the Dataplane that declares it.
pub(super) type Declared<'a> = (&'a Dataplane, &'a Outbound);

/// Every workload address.
#[derive(Debug, Default)]
pub(super) struct Sources<'a> {
    /// Address → its Dataplanes, sorted by (mesh, name).
    by_address: BTreeMap<IpAddr, Vec<&'a Dataplane>>,
    /// VIP → workload address → the outbounds by which its Dataplanes declare that VIP, by
    /// (mesh, name) and then as written.
    own: BTreeMap<SocketAddr, BTreeMap<IpAddr, Vec<Declared<'a>>>>,
}

impl<'a> Sources<'a> {
    /// The sources among `dataplanes`, which are sorted by (mesh, name).
    pub(super) fn of(dataplanes: &[&'a Dataplane], names: &Names) -> Self {
        let mut sources = Self::default();
        for dataplane in dataplanes {
            for address in workload_addresses(dataplane, names) {
                sources.by_address.entry(address).or_default().push(dataplane);
                for outbound in &dataplane.outbounds {
                    let vip = dialled(outbound);
                    if !vip.ip().is_loopback() {
                        let by_address = sources.own.entry(vip).or_default();
                        by_address.entry(address).or_default().push((dataplane, outbound));
                    }
                }
            }
        }
        sources
    }

    /// All addresses with their Dataplanes, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[&'a Dataplane])> {
        self.by_address.iter().map(|(address, dataplanes)| (*address, dataplanes.as_slice()))
    }

    /// The Dataplanes with this address.
    pub(super) fn dataplanes(&self, address: IpAddr) -> &[&'a Dataplane] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The outbound by which a source itself declares `vip` for a service of `mesh`: the first
    /// of its Dataplanes that does counts.
    pub(super) fn own_outbound(
        &self,
        address: IpAddr,
        vip: SocketAddr,
        mesh: &str,
    ) -> Option<Declared<'a>> {
        let declared = self.own.get(&vip)?.get(&address)?;
        declared.iter().find(|(dataplane, _)| dataplane.meta.mesh == mesh).copied()
    }

    /// The sources that declare `vip` themselves, sorted.
    pub(super) fn declaring(&self, vip: SocketAddr) -> impl Iterator<Item = IpAddr> {
        self.own.get(&vip).into_iter().flat_map(|by_address| by_address.keys().copied())
    }
}

/// The addresses that a workload's packets come from: the Dataplane's, and those of inbounds
/// with their own (which is how a workload has one of each family). The advertised address is
/// where others reach it, behind a translation that its own packets have not passed yet.
pub fn workload_addresses(dataplane: &Dataplane, names: &Names) -> BTreeSet<IpAddr> {
    let (own, answered): (Option<IpAddr>, &[IpAddr]) = match &dataplane.address {
        Host::Ip(address) => (Some(*address), &[]),
        Host::Name(name) => (None, names.of(name)),
    };
    let inbounds = dataplane.inbounds.iter().filter_map(|inbound| inbound.address);
    own.into_iter()
        .chain(answered.iter().copied())
        .chain(inbounds)
        .map(|address| address.to_canonical())
        .filter(|address| {
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
        })
        .collect()
}

/// The tag sets that selectors are matched against: each inbound's, whatever its state, and the
/// gateway's (semantics 2.3). Several Dataplanes with one address count as one workload with the
/// inbounds of all.
pub fn tag_sets<'a>(dataplanes: impl IntoIterator<Item = &'a Dataplane>) -> Vec<&'a Tags> {
    let mut sets: Vec<&Tags> = dataplanes
        .into_iter()
        .flat_map(|dataplane| {
            dataplane.inbounds.iter().map(|inbound| &inbound.tags).chain(&dataplane.gateway)
        })
        .collect();
    sets.sort();
    sets.dedup();
    sets
}

/// The namespace that a workload is in, for routes of the Gateway API: as its label or its document
/// says, else as an inbound's tag does. The first Dataplane that tells counts.
pub fn namespace_of<'a>(dataplanes: &[&'a Dataplane]) -> Option<&'a str> {
    dataplanes.iter().find_map(|dataplane| {
        let mut tags = tag_sets([*dataplane]).into_iter();
        namespace(&dataplane.meta)
            .or_else(|| tags.find_map(|tags| tags.get(NAMESPACE_LABEL)).map(String::as_str))
    })
}

/// What an outbound's clients dial.
pub(super) fn dialled(outbound: &Outbound) -> SocketAddr {
    SocketAddr::new(outbound.address.to_canonical(), outbound.port.get())
}
