//! Host names that policies give in place of addresses, and what they stand for.
//!
//! Nothing is looked up here: [`host_names`] says which names are wanted, and whoever resolves
//! puts the answers into [`Names`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::policy::{Host, PolicySet};

/// Answers by name. A name that is not there was not asked: it has no addresses, and nothing is
/// said about that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(BTreeMap<String, HostAnswer>);

/// What a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAnswer {
    /// Its addresses, sorted, each once.
    pub addresses: Vec<IpAddr>,
    /// Why the last question was not answered. Addresses next to it are of an earlier answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

impl Names {
    /// Puts the answer for a name, which may be written in any form. The order of `addresses`
    /// does not matter.
    pub fn insert(
        &mut self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        failure: Option<String>,
    ) {
        let addresses: BTreeSet<IpAddr> =
            addresses.into_iter().map(|address| address.to_canonical()).collect();
        let addresses = addresses.into_iter().collect();
        self.0.insert(canonical(name), HostAnswer { addresses, failure });
    }

    /// The answer for a name.
    pub fn answer(&self, name: &str) -> Option<&HostAnswer> {
        self.0.get(name).or_else(|| self.0.get(&canonical(name)))
    }

    /// The addresses that a name stands for, sorted.
    pub fn of(&self, name: &str) -> &[IpAddr] {
        self.answer(name).map_or(&[], |answer| &answer.addresses)
    }

    /// All answers, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostAnswer)> {
        self.0.iter().map(|(name, answer)| (name.as_str(), answer))
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The names that a set gives in place of addresses, in the one form that [`Names`] keeps: small
/// letters, without a dot at the end.
pub fn host_names(set: &PolicySet) -> BTreeSet<String> {
    let dataplanes = set
        .dataplanes
        .iter()
        .flat_map(|dataplane| std::iter::once(&dataplane.address).chain(&dataplane.advertised));
    let mesh_external = set
        .mesh_external_services
        .iter()
        .flat_map(|service| service.endpoints.iter().map(|endpoint| &endpoint.address));
    let external = set.external_services.iter().map(|service| &service.address);
    dataplanes
        .chain(mesh_external)
        .chain(external)
        .filter_map(|host| match host {
            Host::Name(name) => Some(canonical(name)),
            Host::Ip(_) => None,
        })
        .collect()
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{Names, host_names};
    use crate::resolve::tests::world::documents;

    #[test]
    fn names_are_found_however_they_are_written() {
        let mut names = Names::default();
        let mapped = "::ffff:192.0.2.7".parse().unwrap();
        let six = "2001:db8::7".parse().unwrap();
        names.insert("API.example.com.", [six, mapped], None);
        let expected = ["192.0.2.7".parse().unwrap(), six];
        assert_eq!(names.of("api.EXAMPLE.com"), expected);
        assert!(names.of("other.example.com").is_empty());
    }

    #[test]
    fn every_name_in_place_of_an_address_is_wanted_once() {
        let set = documents(
            "type: Dataplane\nmesh: default\nname: web\nnetworking:\n  address: web.example.com\n  \
             advertisedAddress: Edge.example.com\n  inbound:\n  - {port: 80, tags: \
             {kuma.io/service: web}}\n---\ntype: MeshExternalService\nmesh: default\nname: \
             weather\nspec:\n  match: {port: 443}\n  endpoints:\n  - {address: \
             api.example.com, port: 443}\n  - {address: edge.example.com., port: 444}\n  - \
             {address: 192.0.2.1, port: 443}\n---\ntype: ExternalService\nmesh: default\nname: \
             pay\ntags: {kuma.io/service: pay}\nnetworking: {address: 'pay.example.com:80'}\n",
        );
        assert_eq!(
            host_names(&set).into_iter().collect::<Vec<_>>(),
            ["api.example.com", "edge.example.com", "pay.example.com", "web.example.com"]
        );
    }
}
