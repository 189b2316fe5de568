//! `hashing.jsonl`: tables, counts and bounds of consistent hashing.
//!
//! A table is compared slot by slot where the case states the hash and what is hashed;
//! otherwise only the counts are, each within a slot.

use std::{collections::BTreeMap, net::SocketAddr};

use balancer_ebpf::abi::{REAL_BLACKHOLE, REAL_FIRST};
use balancer_user::{
    compile::{RUNGS, Table, TableSize, apportion, maglev, table},
    policy::{LoadBalancer, Tags},
    resolve::{Backend, BackendState, Decision, Destination, Hashing, Route},
};
use serde_json::Value;

use crate::cases::Verdict;

/// Judges one case.
pub(crate) fn judge(case: &Value) -> Verdict {
    let judged = match case["kind"].as_str() {
        Some("exact-table") => exact_table(case),
        Some("disruption") => disruption(case),
        Some("property") => property(case),
        Some("bound") => bound(case),
        _ => return Verdict::NotBuilt,
    };
    match judged {
        Ok(()) => Verdict::Passed,
        Err(Difference { expected, found }) => Verdict::Failed { expected, found },
    }
}

struct Difference {
    expected: String,
    found: String,
}

type Judged = Result<(), Difference>;

fn compare<T: PartialEq + std::fmt::Debug>(expected: &T, found: &T) -> Judged {
    check(expected == found, || (format!("{expected:?}"), format!("{found:?}")))
}

fn check(holds: bool, texts: impl FnOnce() -> (String, String)) -> Judged {
    if holds {
        return Ok(());
    }
    let (expected, found) = texts();
    Err(Difference { expected, found })
}

fn unreadable(what: &str) -> Difference {
    Difference { expected: format!("a case with {what}"), found: "none that can be read".into() }
}

/// A host of a case.
#[derive(Clone)]
struct Host {
    /// Its number in the case.
    index: usize,
    address: SocketAddr,
    hash_key: Option<String>,
    weight: u32,
    locality: Option<String>,
}

fn exact_table(case: &Value) -> Judged {
    if case["hash"]["function"] != "xxHash64" {
        return counts_only(case);
    }
    let size = size(case)?;
    let expected: Vec<usize> = numbers(&case["expected_table_as_host_index"]);
    let hosts = hosts(&case["hosts"])?;
    let found = indices(case, &hosts, size)?;
    compare(&expected, &found)?;

    let counts = counts(&found, hosts.len());
    for (key, value) in [("min", counts.iter().min()), ("max", counts.iter().max())] {
        let stated = case["entries_per_host"][key].as_u64();
        let value = value.copied().map(|n| n as u64);
        check(stated.is_none() || stated == value, || {
            (format!("{key} entries per host {stated:?}"), format!("{value:?}"))
        })?;
    }
    for turn in 1..hosts.len() {
        let mut shuffled = hosts.clone();
        shuffled.rotate_left(turn);
        shuffled.swap(0, hosts.len() - 1);
        compare(&expected, &indices(case, &shuffled, size)?)?;
    }
    Ok(())
}

/// Slot → number of the host in the case.
fn indices(case: &Value, hosts: &[Host], size: TableSize) -> Result<Vec<usize>, Difference> {
    if hosts.iter().all(|host| host.hash_key.is_some()) {
        let mut named: Vec<(&str, usize)> =
            hosts.iter().map(|h| (h.hash_key.as_deref().unwrap_or_default(), h.index)).collect();
        named.sort_unstable();
        let counts = apportion::evenly(size.slots(), hosts.len());
        let targets: Vec<_> = named.iter().zip(counts).map(|(n, count)| (n.0, count)).collect();
        let slots = maglev::fill(&targets, size);
        return Ok(slots.into_iter().map(|target| named[usize::from(target)].1).collect());
    }
    let mut sorted: Vec<&Host> = hosts.iter().collect();
    sorted.sort_by_key(|host| host.address);
    let table = compiled(&route(case, &sorted), &sorted, size)?;
    Ok(table
        .slots
        .iter()
        .map(|&slot| table.targets[usize::from(slot)].real - REAL_FIRST)
        .map(|real| sorted[real as usize].index)
        .collect())
}

/// A maglev route over the hosts: a backend for each locality; without localities one for all
/// if they weigh the same, else one for each.
fn route(case: &Value, hosts: &[&Host]) -> Route {
    let mut backends: BTreeMap<String, Backend> = BTreeMap::new();
    let alike = hosts.iter().all(|host| host.weight == hosts[0].weight);
    for host in hosts {
        let (name, weight) = match &host.locality {
            Some(locality) => {
                let weight = case["locality_weights"][locality].as_u64().unwrap_or(0);
                (locality.clone(), weight as u32)
            }
            None if alike => ("all".to_owned(), 1),
            None => (host.address.to_string(), host.weight),
        };
        let backend = backends
            .entry(name.clone())
            .or_insert_with(|| backend(&name, weight, BackendState::Ok));
        backend.reals.push(host.address);
    }
    maglev_route(backends.into_values().collect())
}

fn backend(service: &str, weight: u32, state: BackendState) -> Backend {
    let destination = Destination::tags("default", service);
    Backend { destination, tags: Tags::new(), weight, state, reals: Vec::new() }
}

fn maglev_route(backends: Vec<Backend>) -> Route {
    Route {
        policy: None,
        decision: Decision::Forward,
        load_balancer: LoadBalancer::Maglev,
        backends,
        http: None,
        hashing: Hashing::default(),
    }
}

fn compiled(route: &Route, hosts: &[&Host], size: TableSize) -> Result<Table, Difference> {
    let id = |addr| {
        let found = hosts.binary_search_by_key(&addr, |host| host.address);
        found.map_or(0, |index| REAL_FIRST + index as u32)
    };
    table(route, id, Some(size))
        .map_err(|error| Difference { expected: "a table".into(), found: error.to_string() })
}

/// A table of another hash: as many slots for each backend, give or take one for rounding.
fn counts_only(case: &Value) -> Judged {
    let size = size(case)?;
    let hosts = hosts(&case["backends"])?;
    let found = counts(&indices(case, &hosts, size)?, hosts.len());
    for (host, &found) in hosts.iter().zip(&found) {
        let stated = case["counts"][host.index.to_string()].as_u64();
        let expected = stated.ok_or_else(|| unreadable("a count for each backend"))?;
        check((found as u64).abs_diff(expected) <= 1, || {
            (format!("{expected} slots of {} (within 1)", host.address), found.to_string())
        })?;
    }
    Ok(())
}

fn disruption(case: &Value) -> Judged {
    let size = size(case)?;
    let hosts = hosts(&case["backends"])?;
    let ids: Vec<usize> = numbers(&case["remove"]);
    let removed: Vec<usize> = case["backends"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, host)| host["id"].as_u64().is_some_and(|id| ids.contains(&(id as usize))))
        .map(|(index, _)| index)
        .collect();
    check(!removed.is_empty(), || ("a backend to remove".into(), format!("{ids:?}")))?;
    let kept: Vec<Host> =
        hosts.iter().filter(|host| !removed.contains(&host.index)).cloned().collect();
    let (was, is) = (indices(case, &hosts, size)?, indices(case, &kept, size)?);
    let moved = was.iter().zip(&is).filter(|(was, is)| !removed.contains(was) && was != is).count();
    let percent = moved as f64 * 100.0 / f64::from(size.slots());
    let bound = case["slots_of_kept_backends_that_change"]["less_than_percent_of_table"]
        .as_f64()
        .ok_or_else(|| unreadable("a bound"))?;
    check(percent < bound, || (format!("less than {bound} %"), format!("{percent} %")))
}

fn property(case: &Value) -> Judged {
    if case.get("expect_error").is_some() {
        let slots = case["table_size"].as_u64().unwrap_or(0) as u32;
        return match TableSize::new(slots) {
            Err(error) if error.to_string().contains("prime") => Ok(()),
            other => Err(Difference {
                expected: "an error that speaks of primes".into(),
                found: format!("{other:?}"),
            }),
        };
    }
    let size = size(case)?;
    if let Some(expected) = case["expect_counts"].as_object() {
        let hosts = described_hosts(case["hosts"].as_str().unwrap_or_default())?;
        let counts = counts(&indices(case, &hosts, size)?, hosts.len());
        let stated = |key: &str| expected.get(key).and_then(Value::as_u64);
        for (index, &found) in counts.iter().enumerate() {
            let own = stated(&format!("host {index}")).or_else(|| stated("each other host"));
            let expected = own.ok_or_else(|| unreadable("a count for each host"))?;
            check(found as u64 == expected, || {
                (format!("{expected} slots of host {index}"), found.to_string())
            })?;
        }
        return Ok(());
    }
    match case["expect"].as_str() {
        Some("no host is chosen") => {
            let route = maglev_route(vec![backend("none", 1, BackendState::Empty)]);
            let table = compiled(&route, &[], size)?;
            let reals: Vec<u32> =
                table.slots.iter().map(|&slot| table.targets[usize::from(slot)].real).collect();
            compare(&vec![REAL_BLACKHOLE; size.slots() as usize], &reals)
        }
        Some("always that host") => {
            let slots = indices(case, &hosts(&case["hosts"])?, size)?;
            let keys: Vec<usize> = numbers(&case["keys"]);
            let chosen: Vec<usize> = keys.iter().map(|key| slots[key % slots.len()]).collect();
            check(!keys.is_empty(), || ("keys".into(), "none".into()))?;
            compare(&vec![0; keys.len()], &chosen)
        }
        _ => Err(unreadable("an expectation known here")),
    }
}

/// Hosts given in words: `N hosts, A:P .. A:Q; host 0 alone in locality A, the rest in B`.
fn described_hosts(text: &str) -> Result<Vec<Host>, Difference> {
    let read = || {
        let (range, localities) = text.split_once("; ")?;
        let (count, range) = range.split_once(" hosts, ")?;
        let (first, last) = range.split_once(" .. ")?;
        let (first, last): (SocketAddr, SocketAddr) = (first.parse().ok()?, last.parse().ok()?);
        let known = localities == "host 0 alone in locality A, the rest in B";
        let hosts: Vec<Host> = (first.port()..=last.port())
            .enumerate()
            .map(|(index, port)| Host {
                index,
                address: SocketAddr::new(first.ip(), port),
                hash_key: None,
                weight: 1,
                locality: Some(if index == 0 { "A" } else { "B" }.to_owned()),
            })
            .collect();
        (known && count.parse() == Ok(hosts.len())).then_some(hosts)
    };
    read().ok_or_else(|| unreadable("hosts described as expected"))
}

fn bound(case: &Value) -> Judged {
    let rule = case["rule"].as_str().unwrap_or_default();
    if rule.contains("no two shares differ by more than 1 percent") {
        let sizes: Vec<usize> = numbers(&case["table_sizes"]);
        check(!sizes.is_empty(), || ("table sizes".into(), "none".into()))?;
        return sizes.into_iter().try_for_each(shares_are_alike);
    }
    if rule.contains("the table size is prime") {
        return sizes_are_prime();
    }
    Err(unreadable("a rule known here"))
}

/// With a hundred slots for each host and more, the largest share is at most 1 % above the
/// smallest.
fn shares_are_alike(slots: usize) -> Judged {
    let size = TableSize::new(slots as u32)
        .map_err(|error| Difference { expected: "a table".into(), found: error.to_string() })?;
    for n in [2, 7, slots / 1000, slots / 100] {
        let hosts: Vec<Host> = (0..n)
            .map(|index| Host {
                index,
                address: SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 80)),
                hash_key: None,
                weight: 1,
                locality: None,
            })
            .collect();
        let counts = counts(&indices(&Value::Null, &hosts, size)?, n);
        let (min, max) = (counts.iter().min().copied(), counts.iter().max().copied());
        check(max.unwrap_or(0) * 100 <= min.unwrap_or(0) * 101, || {
            (format!("{n} shares of {slots} within 1 %"), format!("{min:?} to {max:?}"))
        })?;
    }
    Ok(())
}

/// Exactly the primes are sizes, and on each the walk of one target reaches every slot, which
/// it does only with a skip from 1 to M − 1.
fn sizes_are_prime() -> Judged {
    for slots in 0..2000u32 {
        let prime = slots > 1 && (2..slots).all(|divisor| slots % divisor != 0);
        check(TableSize::new(slots).is_ok() == prime, || {
            (format!("{slots} is a size: {prime}"), format!("{}", !prime))
        })?;
        if let Ok(size) = TableSize::new(slots).map_err(|_| ()) {
            let filled = maglev::fill(&[("10.0.0.1:80", slots), ("10.0.0.2:80", 0)], size);
            check(filled.iter().all(|&target| target == 0), || {
                (format!("{slots} slots of one target"), format!("{filled:?}"))
            })?;
        }
    }
    let rungs = RUNGS.map(|size| TableSize::new(size.slots()));
    check(rungs.iter().all(Result::is_ok), || ("prime rungs".into(), format!("{rungs:?}")))
}

fn size(case: &Value) -> Result<TableSize, Difference> {
    let slots = case["table_size"].as_u64().ok_or_else(|| unreadable("a table size"))?;
    TableSize::new(slots as u32)
        .map_err(|error| Difference { expected: "a table".into(), found: error.to_string() })
}

fn hosts(list: &Value) -> Result<Vec<Host>, Difference> {
    let hosts = list.as_array().ok_or_else(|| unreadable("a list of hosts"))?;
    hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let text = host["address"].as_str().unwrap_or_default();
            let address = match host["port"].as_u64() {
                Some(port) => format!("{text}:{port}").parse(),
                None => text.parse(),
            };
            Ok(Host {
                index,
                address: address.map_err(|_| unreadable("addresses"))?,
                hash_key: host["hash_key"].as_str().map(str::to_owned),
                weight: host["weight"].as_u64().unwrap_or(1) as u32,
                locality: host["locality"].as_str().map(str::to_owned),
            })
        })
        .collect()
}

fn numbers(list: &Value) -> Vec<usize> {
    let numbers = list.as_array().into_iter().flatten();
    numbers.filter_map(Value::as_u64).map(|n| n as usize).collect()
}

fn counts(slots: &[usize], hosts: usize) -> Vec<usize> {
    let mut counts = vec![0; hosts];
    for &host in slots {
        counts[host] += 1;
    }
    counts
}
