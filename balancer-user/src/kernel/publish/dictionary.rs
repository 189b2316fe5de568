//! Dictionaries: hash maps from a key to an id, an element written once and never updated.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::{ClassVip, VipKey4, VipKey6, map_names};
use zerocopy::IntoBytes as _;

use crate::resolve::VipKey;

use super::super::{KernelError, View, addresses::Addresses, read::duplicate};

/// Entries to add and to delete, in key order.
#[derive(Debug)]
pub(crate) struct Change<K> {
    pub(crate) added: Vec<(K, u32)>,
    pub(crate) removed: Vec<(K, u32)>,
}

impl<K> Default for Change<K> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new() }
    }
}

impl<K> Change<K> {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// What leads from `old` to `new`. An element is never updated in place, and an id that is
/// given back by this very change is not free yet: somebody may hold it.
pub(crate) fn change<K: Copy + Ord + std::fmt::Debug>(
    what: &str,
    old: impl Iterator<Item = (K, u32)>,
    new: impl Iterator<Item = (K, u32)>,
) -> Result<Change<K>, KernelError> {
    let mut change = Change::default();
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some((a, x)), Some((b, y))) if a == b => {
                if x != y {
                    return Err(KernelError::Conflict(format!("{what} {a:?} has id {x}, not {y}")));
                }
                old.next();
                new.next();
            }
            (Some((a, _)), Some((b, _))) if a < b => change.removed.extend(old.next()),
            (Some(_), None) => change.removed.extend(old.next()),
            _ => change.added.extend(new.next()),
        }
    }
    given_back_only_now(what, &change.added, &change.removed)?;
    Ok(change)
}

/// Refuses ids that are given out by the change that gives them back.
pub(crate) fn given_back_only_now<K: std::fmt::Debug>(
    what: &str,
    added: &[(K, u32)],
    removed: &[(K, u32)],
) -> Result<(), KernelError> {
    if added.is_empty() || removed.is_empty() {
        return Ok(());
    }
    let given_back: BTreeSet<u32> = removed.iter().map(|(_, id)| *id).collect();
    match added.iter().find(|(_, id)| given_back.contains(id)) {
        Some((key, id)) => Err(KernelError::Conflict(format!(
            "{what} {key:?} wants id {id}, which is given back only now"
        ))),
        None => Ok(()),
    }
}

/// The dictionaries, opened for writing.
pub(crate) struct Dictionaries {
    vips4: HashMap<MapData, [u8; size_of::<VipKey4>()], u32>,
    vips6: HashMap<MapData, [u8; size_of::<VipKey6>()], u32>,
    sources4: HashMap<MapData, [u8; 4], u32>,
    sources6: HashMap<MapData, [u8; 16], u32>,
    class_routes: HashMap<MapData, [u8; size_of::<ClassVip>()], u32>,
    addresses: Addresses,
}

/// Do not overwrite.
const BPF_NOEXIST: u64 = 1;

/// What to do with an element.
#[derive(Clone, Copy)]
pub(crate) enum Edit {
    Add(u32),
    Delete,
}

impl Dictionaries {
    pub(crate) fn open(view: &View) -> Result<Self, KernelError> {
        fn open<K: aya::Pod>(
            name: &str,
            map: &MapData,
        ) -> Result<HashMap<MapData, K, u32>, KernelError> {
            HashMap::try_from(Map::HashMap(duplicate(name, map)?))
                .map_err(|e| super::super::map_failed(name, e))
        }
        Ok(Self {
            vips4: open(map_names::VIP_IDS4, &view.vip_ids4)?,
            vips6: open(map_names::VIP_IDS6, &view.vip_ids6)?,
            sources4: open(map_names::SOURCE_IDS4, &view.source_ids4)?,
            sources6: open(map_names::SOURCE_IDS6, &view.source_ids6)?,
            class_routes: open(map_names::CLASS_ROUTES, &view.class_routes)?,
            addresses: Addresses::open(view)?,
        })
    }

    /// A VIP, and its address: known as one for as long as any VIP has it.
    pub(crate) fn vip(&mut self, key: &VipKey, edit: Edit) -> Result<(), KernelError> {
        match edit {
            Edit::Add(_) => {
                self.addresses.up(key.addr.ip())?;
                self.vip_id(key, edit)
            }
            Edit::Delete => {
                self.vip_id(key, edit)?;
                self.addresses.down(key.addr.ip())
            }
        }
    }

    fn vip_id(&mut self, key: &VipKey, edit: Edit) -> Result<(), KernelError> {
        let (port, proto) = (key.addr.port().to_be_bytes(), key.protocol.number());
        match key.addr {
            SocketAddr::V4(addr) => {
                let key = VipKey4 { addr: addr.ip().octets(), port, proto, zero: 0 };
                let mut bytes = [0; size_of::<VipKey4>()];
                bytes.copy_from_slice(key.as_bytes());
                apply(map_names::VIP_IDS4, &mut self.vips4, bytes, edit)
            }
            SocketAddr::V6(addr) => {
                let key = VipKey6 { addr: addr.ip().octets(), port, proto, zero: 0 };
                let mut bytes = [0; size_of::<VipKey6>()];
                bytes.copy_from_slice(key.as_bytes());
                apply(map_names::VIP_IDS6, &mut self.vips6, bytes, edit)
            }
        }
    }

    pub(crate) fn source(&mut self, address: &IpAddr, edit: Edit) -> Result<(), KernelError> {
        match address {
            IpAddr::V4(a) => apply(map_names::SOURCE_IDS4, &mut self.sources4, a.octets(), edit),
            IpAddr::V6(a) => apply(map_names::SOURCE_IDS6, &mut self.sources6, a.octets(), edit),
        }
    }

    pub(crate) fn class_route(
        &mut self,
        (class, vip): (u32, u32),
        edit: Edit,
    ) -> Result<(), KernelError> {
        let mut bytes = [0; size_of::<ClassVip>()];
        bytes.copy_from_slice(ClassVip { class, vip }.as_bytes());
        apply(map_names::CLASS_ROUTES, &mut self.class_routes, bytes, edit)
    }
}

fn apply<K: aya::Pod>(
    name: &str,
    map: &mut HashMap<MapData, K, u32>,
    key: K,
    edit: Edit,
) -> Result<(), KernelError> {
    match edit {
        Edit::Add(id) => map.insert(key, id, BPF_NOEXIST),
        Edit::Delete => map.remove(&key),
    }
    .map_err(|e| super::super::map_failed(name, e))
}

/// Applies a change to what is remembered of a dictionary.
pub(crate) fn remember<K: Copy + Ord>(mirror: &mut BTreeMap<K, u32>, change: &Change<K>) {
    for (key, _) in &change.removed {
        mirror.remove(key);
    }
    mirror.extend(change.added.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_names_what_came_and_went() {
        let old = [(1, 10), (2, 20), (4, 40)];
        let new = [(2, 20), (3, 30), (4, 40), (5, 50)];
        let change = change("key", old.into_iter(), new.into_iter()).expect("no conflict");
        assert_eq!(change.added, [(3, 30), (5, 50)]);
        assert_eq!(change.removed, [(1, 10)]);
    }

    #[test]
    fn an_id_is_not_free_in_the_change_that_gives_it_back() {
        let error = change("VIP", [(1, 10)].into_iter(), [(2, 10)].into_iter());
        assert!(matches!(error, Err(KernelError::Conflict(_))), "{error:?}");
        let error = change("VIP", [(1, 10)].into_iter(), [(1, 11)].into_iter());
        assert!(matches!(error, Err(KernelError::Conflict(_))), "{error:?}");
    }
}
