//! Following changes of files that hold many documents: these come, go and move, and whatever is
//! found stands where a fresh look finds it.

use proptest::{prelude::*, sample::Index};

use super::{
    change::{parts, said_all},
    world::settings,
};
use crate::{
    policy::{Edits, ReadOptions, Reader, Reading, Report, SourceText, Texts, read, render},
    resolve::{Change, Resolution, ResolveSettings, resolve},
};

fn workload(name: &str, octet: u8, service: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\nnetworking:\n  address: 10.0.0.{octet}\n  \
         inbound: [{{port: 80, tags: {{kuma.io/service: {service}}}}}]\n"
    )
}

/// The same address for whatever it dials: two of these may be in dispute.
fn dialling(name: &str, octet: u8, service: &str) -> String {
    workload(name, octet, "web")
        + &format!(
            "  outbound: [{{address: 10.9.0.1, port: 80, tags: {{kuma.io/service: {service}}}}}]\n"
        )
}

fn split(name: &str, weight: u32, to: &str) -> String {
    format!(
        "type: TrafficRoute\nmesh: default\nname: {name}\n\
         sources: [{{match: {{kuma.io/service: '*'}}}}]\n\
         destinations: [{{match: {{kuma.io/service: api}}}}]\nconf:\n  split:\n  \
         - {{weight: 1, destination: {{kuma.io/service: api}}}}\n  \
         - {{weight: {weight}, destination: {{kuma.io/service: {to}}}}}\n"
    )
}

/// Of all on the listener but one there is to say that they are idle, and where that one stands.
fn rival(name: &str, weight: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         parentRefs: [{{name: edge, sectionName: tcp}}]\n  \
         rules: [{{backendRefs: [{{name: near, port: 80, weight: {weight}}}]}}]\n"
    )
}

const SHOP: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: node, addresses: [{value: 192.0.2.10}], listeners: [{name: tcp, port: 80, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: near-1, namespace: shop, labels: {kubernetes.io/service-name: near}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.1.0.1]}]
";

/// An agent that reads files again and again.
struct Agent {
    reader: Reader,
    resolution: Option<Resolution>,
    settings: ResolveSettings,
    /// Since the last set that was good.
    edits: Edits,
}

impl Agent {
    fn new() -> Self {
        let (reader, edits) = (Reader::new(ReadOptions::default()), Edits::NONE);
        Self { reader, resolution: None, settings: settings(), edits }
    }

    /// Reads files, each a list of documents, and goes on from the outcome before. What comes out
    /// is what comes out for somebody who knows nothing.
    fn read(&mut self, files: &[Vec<String>]) -> Option<Change> {
        let text = |(n, documents): (usize, &Vec<String>)| SourceText {
            name: format!("{n}.yaml"),
            text: documents.join("---\n").into(),
        };
        let texts: Texts = files.iter().enumerate().map(text).collect();
        let (reading, edits) = self.reader.read(texts.clone());
        let fresh = read(texts, &ReadOptions::default());
        assert_eq!(render::report(&reading.report, false), render::report(&fresh.report, false));
        self.edits = std::mem::replace(&mut self.edits, Edits::NONE).then(edits);
        if !reading.report.valid() {
            return None;
        }
        let edits = std::mem::replace(&mut self.edits, Edits::NONE);
        let mut change = Change::Whole;
        let resolution = match self.resolution.take() {
            Some(mut resolution) => {
                let old = resolution.resolved().clone();
                self.settings.assigned = old.assigned.clone();
                change = resolution.follow(&reading.set, &self.settings, &edits);
                if let Change::Parts(parts) = &change {
                    said_all(parts, &old, resolution.resolved());
                }
                resolution
            }
            None => Resolution::new(&reading.set, &self.settings),
        };
        let resolved = resolution.resolved();
        assert_eq!(*resolved, resolve(&reading.set, &self.settings));
        let of_fresh = resolve(&fresh.set, &self.settings);
        assert_eq!(
            merged(&reading, &resolved.diagnostics),
            merged(&fresh, &of_fresh.diagnostics),
            "findings stand where they stand"
        );
        for (_, found) in resolved.diagnostics.iter().filter(|(_, found)| !found.is_error()) {
            // Warnings are kept, and what they say in words does not move with what they mean.
            assert!(!found.message.contains(".yaml"), "{}", found.message);
        }
        self.resolution = Some(resolution);
        Some(change)
    }
}

fn merged(reading: &Reading, found: &[(crate::policy::Meta, crate::policy::Diagnostic)]) -> String {
    let mut report: Report = reading.report.clone();
    report.merge(found);
    render::report(&report, false)
}

/// Three workloads of a service below findings of all sorts.
fn shop() -> Vec<Vec<String>> {
    let loud = [split("lost", 1, "nowhere"), rival("a", 1), rival("b", 1), rival("c", 1)];
    let workloads = (1..4).map(|n| workload(&format!("d{n}"), n, "api"));
    vec![loud.into_iter().chain(workloads).collect(), vec![SHOP.to_owned()]]
}

#[test]
fn documents_that_move_are_small_changes_below_and_above_findings() {
    let mut agent = Agent::new();
    assert_eq!(agent.read(&shop()), Some(Change::Whole));
    let mut files = shop();
    files[0].insert(0, workload("new", 9, "api"));
    let all = parts(agent.read(&files).expect("a good set"));
    assert_eq!((all.inventory_added.len(), all.inventory_removed.len()), (1, 0));
    files[0].remove(6);
    let all = parts(agent.read(&files).expect("a good set"));
    assert_eq!((all.inventory_added.len(), all.inventory_removed.len()), (0, 1));
    files[0].reverse();
    assert_eq!(parts(agent.read(&files).expect("a good set")), Default::default());
    files[0].insert(3, "# nothing\n# at all\n".to_owned());
    assert_eq!(parts(agent.read(&files).expect("a good set")), Default::default());
}

#[test]
fn documents_of_findings_are_no_small_changes() {
    let loud = |change: &dyn Fn(&mut Vec<String>)| {
        let mut agent = Agent::new();
        agent.read(&shop());
        let mut files = shop();
        change(&mut files[0]);
        assert_eq!(agent.read(&files), Some(Change::Whole));
    };
    // Its own line moves in it, that of the winner, and who the winner is.
    loud(&|documents| documents[2].insert_str(0, "# a comment\n"));
    loud(&|documents| documents[1].insert_str(0, "# a comment\n"));
    loud(&|documents| drop(documents.remove(1)));
}

fn any_document() -> impl Strategy<Value = String> {
    let service = || prop::sample::select(&["web", "api"][..]);
    let to = prop::sample::select(&["web", "api", "nowhere"][..]);
    prop_oneof![
        8 => (0..12u8, 1..30u8, service())
            .prop_map(|(n, octet, service)| workload(&format!("d{n}"), octet, service)),
        1 => (0..4u8, 40..44u8, service())
            .prop_map(|(n, octet, service)| dialling(&format!("c{n}"), octet, service)),
        2 => (0..6u8, 0..3u32, to).prop_map(|(n, weight, to)| split(&format!("r{n}"), weight, to)),
        2 => (0..6u8, 1..3u32).prop_map(|(n, weight)| rival(&format!("t{n}"), weight)),
        1 => Just("# nothing\n".to_owned()),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Put(Index, Index, String),
    Insert(Index, Index, String),
    Remove(Index, Index),
    Move(Index, Index, Index, Index),
    Comment(Index, Index, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), at(), any_document()).prop_map(|(f, a, d)| Step::Put(f, a, d)),
        3 => (at(), at(), any_document()).prop_map(|(f, a, d)| Step::Insert(f, a, d)),
        3 => (at(), at()).prop_map(|(f, a)| Step::Remove(f, a)),
        3 => (at(), at(), at(), at()).prop_map(|(f, a, g, b)| Step::Move(f, a, g, b)),
        1 => (at(), at(), any::<bool>()).prop_map(|(f, a, b)| Step::Comment(f, a, b)),
    ]
}

fn taken(files: &mut [Vec<String>], step: Step) {
    let of = |file: Index| file.index(files.len());
    match step {
        Step::Insert(file, at, document) => {
            let documents = &mut files[of(file)];
            documents.insert(at.index(documents.len() + 1), document);
        }
        Step::Put(file, at, _)
        | Step::Remove(file, at)
        | Step::Move(file, at, ..)
        | Step::Comment(file, at, _) => {
            let (from, len) = (of(file), files[of(file)].len());
            if len == 0 {
                return;
            }
            let at = at.index(len);
            match step {
                Step::Put(_, _, document) => files[from][at] = document,
                Step::Comment(_, _, true) => files[from][at].insert_str(0, "# a comment\n"),
                Step::Comment(_, _, false) => files[from][at].push_str("# a comment\n"),
                Step::Move(_, _, to, there) => {
                    let to = of(to);
                    let moved = files[from].remove(at);
                    let there = there.index(files[to].len() + 1);
                    files[to].insert(there, moved);
                }
                _ => drop(files[from].remove(at)),
            }
        }
    }
}

proptest! {
    // Each case resolves some dozens of sets.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn documents_that_come_go_and_move_leave_no_finding_behind(
        documents in prop::collection::vec(prop::collection::vec(any_document(), 0..7), 2),
        steps in prop::collection::vec(any_step(), 1..12),
    ) {
        let mut files = documents;
        files.push(vec![SHOP.to_owned()]);
        let mut agent = Agent::new();
        agent.read(&files);
        for step in steps {
            taken(&mut files, step);
            agent.read(&files);
        }
    }
}
