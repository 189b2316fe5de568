//! Patched tables are those of the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use proptest::prelude::*;

use super::{
    super::{
        Assignment, Compiler, Limits, Tables, compile,
        tests::{World, backend, compiled, real, route, source, vip, worlds},
    },
    Numbers, Patch,
};
use crate::{
    policy::LoadBalancer,
    resolve::{Backend, BackendState, Class, Parts, Resolved},
};

/// One small change of a world.
#[derive(Clone, Debug)]
enum Edit {
    Weight(prop::sample::Index, prop::sample::Index, u32),
    Reals(prop::sample::Index, prop::sample::Index, BTreeSet<u8>),
    Comes(prop::sample::Index, u8),
    Goes(u8),
}

fn edits() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (index(), index(), 0u32..4).prop_map(|(r, b, weight)| Edit::Weight(r, b, weight)),
        5 => (index(), index(), prop::collection::btree_set(1u8..30, 0..5))
            .prop_map(|(r, b, reals)| Edit::Reals(r, b, reals)),
        1 => (index(), 1u8..20).prop_map(|(class, n)| Edit::Comes(class, n)),
        1 => (1u8..20).prop_map(Edit::Goes),
    ]
}

fn change(world: &mut World, edit: &Edit) {
    let mut routes: Vec<_> = world
        .vips
        .values_mut()
        .flat_map(|(everybody, own)| std::iter::once(everybody).chain(own.values_mut()))
        .collect();
    let mut choose = |r: &prop::sample::Index, b: &prop::sample::Index| {
        let at = if routes.is_empty() { return None } else { r.index(routes.len()) };
        let backends = &mut routes.swap_remove(at).backends;
        let at = b.index(backends.len());
        Some(&mut backends[at])
    };
    match edit {
        Edit::Weight(r, b, weight) => {
            if let Some(backend) = choose(r, b) {
                backend.weight = *weight;
                state(backend);
            }
        }
        Edit::Reals(r, b, reals) => {
            if let Some(backend) = choose(r, b) {
                backend.reals = reals.iter().map(|&n| real(n)).collect();
                state(backend);
            }
        }
        Edit::Comes(class, n) => {
            if !world.classes.iter().flatten().any(|there| there == n) && !world.classes.is_empty()
            {
                let at = class.index(world.classes.len());
                world.classes[at].push(*n);
            }
        }
        Edit::Goes(n) => {
            world.classes.iter_mut().for_each(|class| class.retain(|there| there != n));
        }
    }
}

fn state(backend: &mut Backend) {
    backend.state = match (backend.weight, backend.reals.is_empty()) {
        (0, _) => BackendState::Drained,
        (_, true) => BackendState::Empty,
        _ => BackendState::Ok,
    };
}

fn only<T: Ord + Copy>(here: impl Iterator<Item = T>, there: impl Iterator<Item = T>) -> Vec<T> {
    let there: BTreeSet<T> = there.collect();
    here.filter(|one| !there.contains(one)).collect()
}

fn parts(old: &Resolved, new: &Resolved) -> Parts {
    let differ = |index: &usize| old.routes[*index] != new.routes[*index];
    // One that changed its class goes and comes.
    let addresses = |here: &Resolved, there: &Resolved| -> Vec<IpAddr> {
        let members =
            |of: &Resolved| of.sources.iter().map(|s| (s.address, s.class)).collect::<Vec<_>>();
        let here = only(members(here).into_iter(), members(there).into_iter());
        here.into_iter().map(|(address, _)| address).collect()
    };
    Parts {
        routes: (0..new.routes.len()).filter(differ).collect(),
        sources_added: addresses(new, old),
        sources_removed: addresses(old, new),
        inventory_added: only(new.inventory.iter().copied(), old.inventory.iter().copied()),
        inventory_removed: only(old.inventory.iter().copied(), new.inventory.iter().copied()),
    }
}

fn difference(old: &Tables, new: &Tables, parts: &Parts) -> Patch {
    let differ = |id: &&u32| old.routes.get(id) != new.routes.get(id);
    let ids = |tables: &Tables| tables.reals.keys().copied().collect::<Vec<_>>();
    let inventory = parts.inventory_added.iter().chain(&parts.inventory_removed);
    Patch {
        routes: new.routes.keys().filter(differ).copied().collect(),
        reals_added: only(ids(new).into_iter(), ids(old).into_iter()),
        reals_removed: only(ids(old).into_iter(), ids(new).into_iter())
            .into_iter()
            .map(|id| (id, old.reals[&id].addr))
            .collect(),
        sources_added: parts.sources_added.clone(),
        sources_removed: parts.sources_removed.iter().map(|a| (*a, old.sources[a].id)).collect(),
        inventory: inventory.copied().collect::<BTreeSet<SocketAddr>>().into_iter().collect(),
    }
}

/// What the kernel does with reals that no table names and no flow.
fn free(assignment: &mut Assignment, tables: &Tables, keep: u32) {
    let named: BTreeSet<u32> = tables.reals.keys().copied().collect();
    let gone: BTreeMap<_, _> = assignment
        .reals
        .extract_if(.., |_, (id, _)| !named.contains(id) && *id % 3 != keep)
        .collect();
    assignment.free_real_generations.extend(gone.into_values());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn patched_tables_are_those_of_the_whole(
        first in worlds(),
        before in worlds(),
        turns in prop::collection::vec((prop::collection::vec(edits(), 1..4), 0u32..4), 1..10),
    ) {
        let limits = Limits::default();
        let mut assignment =
            Assignment::default().after(&compiled(&before, &Assignment::default()));
        free(&mut assignment, &Tables::default(), 1);
        let mut compiler = Compiler::new();
        let mut world = first;
        let mut resolved = world.resolved();
        let mut tables = compiler.compile(&resolved, &assignment, &limits).unwrap();
        for (edits, keep) in turns {
            assignment = assignment.after(&tables);
            free(&mut assignment, &tables, keep);
            edits.iter().for_each(|edit| change(&mut world, edit));
            let new = world.resolved();
            let whole = compile(&new, &assignment, &limits).unwrap();
            let parts = parts(&resolved, &new);
            let old = tables.clone();
            match compiler.patch(&mut tables, &new, &parts, &assignment, &limits) {
                Some(patch) => {
                    prop_assert_eq!(&tables, &whole);
                    prop_assert_eq!(patch, difference(&old, &tables, &parts));
                }
                None => {
                    prop_assert_eq!(&tables, &old);
                    // A class lost all of its members, so it has no id to keep; or a source
                    // changed its class.
                    let stay = |class: &Class| {
                        class.sources.iter().any(|s| old.sources.contains_key(s))
                    };
                    let moved = parts.sources_added.iter().any(|s| old.sources.contains_key(s));
                    prop_assert!(moved || !new.classes.iter().skip(1).all(stay));
                    tables = compiler.compile(&new, &assignment, &limits).unwrap();
                    prop_assert_eq!(&tables, &whole);
                }
            }
            resolved = new;
        }
    }

    #[test]
    fn the_smallest_free_number_is_taken(
        taken in prop::collection::btree_set(2u32..40, 0..20),
        steps in prop::collection::vec((any::<bool>(), 2u32..40), 0..40),
    ) {
        let mut numbers = Numbers::but(2, taken.iter().copied().collect());
        let mut taken = taken;
        for (take, id) in steps {
            if take {
                let first = numbers.first();
                prop_assert_eq!(Some(first), (2..).find(|id| !taken.contains(id)));
                numbers.take(first);
                taken.insert(first);
            } else if taken.remove(&id) {
                numbers.give(id);
            }
        }
    }
}

fn shop(reals: &[u8]) -> World {
    let plain =
        |n: u8, reals: &[u8]| (n, route(LoadBalancer::Random, vec![backend("a", 1, reals)]));
    let mut world = World::with([plain(1, reals), plain(2, &[9])]);
    world.classes = vec![vec![1]];
    world
}

#[test]
fn what_exceeds_a_limit_is_left_to_the_whole() {
    let (old, new) = (shop(&[1, 2]).resolved(), shop(&[1, 2, 3]).resolved());
    let parts = parts(&old, &new);
    let full = Limits { reals: 3, ..Limits::default() };
    let arena = Limits { arena_slots: 600, ..Limits::default() };
    for limits in [full, arena] {
        let mut compiler = Compiler::new();
        let mut tables = compiler.compile(&old, &Assignment::default(), &limits).unwrap();
        let assignment = Assignment::default().after(&tables);
        let before = tables.clone();
        assert_eq!(compiler.patch(&mut tables, &new, &parts, &assignment, &limits), None);
        assert_eq!(tables, before);
        assert!(compiler.compile(&new, &assignment, &limits).is_err());
        // A failed whole is nothing to go on from either.
        assert_eq!(compiler.patch(&mut tables, &new, &parts, &assignment, &limits), None);
    }
    let mut compiler = Compiler::new();
    let limits = Limits { reals: 4, ..Limits::default() };
    let mut tables = compiler.compile(&old, &Assignment::default(), &limits).unwrap();
    let assignment = Assignment::default().after(&tables);
    let patch = compiler.patch(&mut tables, &new, &parts, &assignment, &limits).unwrap();
    assert_eq!((patch.routes.len(), patch.reals_added.len()), (1, 1));
}

#[test]
fn other_limits_are_left_to_the_whole() {
    let resolved = shop(&[1]).resolved();
    let mut compiler = Compiler::new();
    let mut tables =
        compiler.compile(&resolved, &Assignment::default(), &Limits::default()).unwrap();
    let assignment = Assignment::default().after(&tables);
    let other = Limits { flows: 1, ..Limits::default() };
    let none = Parts::default();
    assert_eq!(compiler.patch(&mut tables, &resolved, &none, &assignment, &other), None);
}

#[test]
fn a_change_of_nothing_is_an_empty_patch() {
    let resolved = shop(&[1]).resolved();
    let mut compiler = Compiler::new();
    let limits = Limits::default();
    let mut tables = compiler.compile(&resolved, &Assignment::default(), &limits).unwrap();
    let assignment = Assignment::default().after(&tables);
    tables.warnings.push("said by the caller".into());
    // Resolution may name what turns out to be the same.
    let parts = Parts { routes: vec![0, 1], ..Parts::default() };
    let patch = compiler.patch(&mut tables, &resolved, &parts, &assignment, &limits).unwrap();
    assert!(patch.is_empty());
    assert_eq!(tables.warnings, ["said by the caller"]);
    assert_eq!(tables.vips[&vip(1)].id, 1);
    assert!(tables.sources.contains_key(&source(1)));
}
