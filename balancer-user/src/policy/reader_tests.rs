use proptest::{prelude::*, sample::Index};

use super::*;
use crate::policy::{
    Edit, PolicySet, read, render,
    testing::{LENIENT, dataplane, placed, route, text},
};

const MESH: &str = "type: Mesh\nname: default\n";

fn file(name: &str, body: &str) -> SourceText {
    SourceText { name: name.to_owned(), ..text(body) }
}

fn workload(name: &str, address: &str) -> String {
    let inbound = "inbound: [{port: 80, tags: {kuma.io/service: web}}]";
    dataplane(&format!("{{address: {address}, {inbound}}}"))
        .replace("name: d", &format!("name: {name}"))
}

fn slice(name: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: 80, name: ''}}]\n\
         endpoints: [{{addresses: [{address}]}}]\n"
    )
}

fn joined(documents: &[String]) -> String {
    documents.join("---\n")
}

/// What changed, by kind and name, with the addresses of workloads before and after.
fn told(edits: &Edits) -> Vec<String> {
    let Edits::Some(edits) = edits else { return vec!["whole".to_owned()] };
    let of = |there: bool| if there { "one" } else { "none" };
    edits
        .iter()
        .map(|edit| match edit {
            Edit::Dataplane { before, after } => {
                let one = before.as_ref().or(after.as_ref()).expect("one of the two");
                let address = |one: &Option<Arc<crate::policy::Dataplane>>| {
                    one.as_ref().map_or("none".to_owned(), |one| format!("{:?}", one.address))
                };
                format!("{} {} -> {}", one.meta.name, address(before), address(after))
            }
            Edit::TrafficRoute { before, after } => {
                format!("route {} -> {}", of(before.is_some()), of(after.is_some()))
            }
            _ => "other".to_owned(),
        })
        .collect()
}

#[test]
fn changed_resource_is_the_one_edit_and_all_others_are_shared() {
    let documents: Vec<String> =
        (0..9).map(|n| workload(&format!("d{n}"), &format!("10.0.0.{n}"))).collect();
    let rest = file(
        "rest.yaml",
        &joined(&[
            MESH.to_owned(),
            route("{split: [{weight: 1, destination: {kuma.io/service: redis}}]}"),
        ]),
    );
    let mut reader = Reader::new(LENIENT);
    let (before, edits) =
        reader.read(vec![file("a.yaml", &joined(&documents)), rest.clone()].into());
    assert!(before.report.valid(), "{:?}", before.report);
    assert_eq!(edits, Edits::Whole, "of the first reading");

    let mut other = documents.clone();
    other[3] = workload("d3", "10.0.1.3");
    let (after, edits) = reader.read(vec![file("a.yaml", &joined(&other)), rest.clone()].into());
    assert_eq!(told(&edits), ["d3 Ip(10.0.0.3) -> Ip(10.0.1.3)"]);
    for (at, (old, new)) in before.set.dataplanes.iter().zip(&after.set.dataplanes).enumerate() {
        assert_eq!(Arc::ptr_eq(old, new), at != 3, "{at}");
    }
    assert!(Arc::ptr_eq(&before.set.traffic_routes[0], &after.set.traffic_routes[0]));

    let (again, edits) = reader.read(vec![file("a.yaml", &joined(&other)), rest].into());
    assert_eq!((again, edits), (after, Edits::NONE));
}

#[test]
fn resources_that_come_go_and_break_are_edits() {
    let mut reader = Reader::new(LENIENT);
    let mesh = || file("mesh.yaml", MESH);
    let one = || file("one.yaml", &workload("one", "10.0.0.1"));
    let mut edits = |texts: Vec<SourceText>| told(&reader.read(texts.into()).1);
    edits(vec![mesh(), one()]);
    let two = file("two.yaml", &workload("two", "10.0.0.2"));
    assert_eq!(edits(vec![mesh(), one(), two.clone()]), ["two none -> Ip(10.0.0.2)"]);
    assert_eq!(edits(vec![mesh(), two.clone(), one()]), [""; 0], "the order says nothing");
    assert_eq!(edits(vec![mesh(), two.clone()]), ["one Ip(10.0.0.1) -> none"]);
    let broken = file("two.yaml", &workload("two", "10.0.0.2").replace("80", "'80'"));
    assert_eq!(edits(vec![mesh(), broken]), ["two Ip(10.0.0.2) -> none"]);
    assert_eq!(edits(vec![mesh(), two.clone()]), ["two none -> Ip(10.0.0.2)"]);
    let renamed = file("other.yaml", &two.text);
    let moved = ["two Ip(10.0.0.2) -> Ip(10.0.0.2)"];
    assert_eq!(edits(vec![mesh(), renamed]), moved, "it stands in another file");
}

#[test]
fn what_concerns_others_is_no_small_change() {
    let mut reader = Reader::new(LENIENT);
    let one = || file("one.yaml", &workload("one", "10.0.0.1"));
    let mut edits = |more: &str| {
        let texts = vec![file("mesh.yaml", MESH), one(), file("more.yaml", more)];
        told(&reader.read(texts.into()).1)
    };
    edits("");
    assert_eq!(edits(&workload("one", "10.0.0.2")), ["whole"], "a name twice");
    assert_eq!(edits(""), ["whole"], "and once again");
    assert_eq!(edits("type: Mesh\nname: other\n"), ["whole"], "a Mesh");
    assert_eq!(edits(""), ["whole"], "and none");
    assert_eq!(edits(&workload("two", "10.0.0.2").replace("default", "nowhere")), ["whole"]);
    assert_eq!(edits(""), ["whole"]);
    assert_eq!(edits(&workload("two", "10.0.0.2")), ["two none -> Ip(10.0.0.2)"]);
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\nspec: {controllerName: a.example/b}\n";
    assert_eq!(edits(gateway), ["whole"], "a kind whose changes are not told one by one");
    assert_eq!(edits(&format!("{gateway}# more\n")), [""; 0], "and says what it said");
}

#[test]
fn edits_after_edits_are_from_the_first_to_the_last() {
    let mut reader = Reader::new(LENIENT);
    let mut edits = |addresses: &[&str]| {
        let documents: Vec<String> =
            (0..).zip(addresses).map(|(n, at)| workload(&format!("d{n}"), at)).collect();
        reader.read(vec![file("mesh.yaml", MESH), file("a.yaml", &joined(&documents))].into()).1
    };
    edits(&["10.0.0.1", "10.0.0.2"]);
    let first = edits(&["10.0.0.3", "10.0.0.2", "10.0.0.9"]);
    let second = edits(&["10.0.0.4", "10.0.0.5"]);
    let back = edits(&["10.0.0.1", "10.0.0.5"]);
    let both = first.then(second);
    assert_eq!(told(&both), ["d0 Ip(10.0.0.1) -> Ip(10.0.0.4)", "d1 Ip(10.0.0.2) -> Ip(10.0.0.5)"]);
    assert_eq!(told(&both.clone().then(back)), ["d1 Ip(10.0.0.2) -> Ip(10.0.0.5)"]);
    assert_eq!(both.clone().then(Edits::Whole), Edits::Whole);
    assert_eq!(Edits::Whole.then(both), Edits::Whole);
}

#[test]
fn documents_that_move_are_no_edits_and_keep_what_they_held() {
    let documents: Vec<String> =
        (0..9).map(|n| workload(&format!("d{n}"), &format!("10.0.0.{n}"))).collect();
    let odd = "apiVersion: v1\nkind: ConfigMap\n".to_owned();
    let warned = workload("odd", "10.0.9.9").replace("kuma.io/service: web", "version: v1");
    let all = [&[MESH.to_owned()], &*documents, &[odd, warned]].concat();
    let mut reader = Reader::new(LENIENT);
    let mut read_again = |documents: &[String]| {
        let texts = vec![file("a.yaml", &joined(documents))];
        let (reading, edits) = reader.read(texts.clone().into());
        assert_eq!(placed(&reading), placed(&read(texts, &LENIENT)));
        (reading, told(&edits))
    };
    let (first, _) = read_again(&all);
    assert_eq!((first.report.resources().count(), first.report.notes().count()), (1, 1));

    let mut more = all.clone();
    more.insert(0, "# a comment of\n# two lines\n".to_owned() + &workload("new", "10.0.1.1"));
    let (after, edits) = read_again(&more);
    assert_eq!(edits, ["new none -> Ip(10.0.1.1)"]);
    let olds = first.set.dataplanes.iter();
    let is_shared = |old| after.set.dataplanes.iter().any(|new| Arc::ptr_eq(old, new));
    assert!(olds.clone().all(is_shared), "also that of the Mesh, now below a marker");
    let text = render::report(&after.report, false);
    assert!(text.contains(" a.yaml:62:60\n") && text.contains(" a.yaml:57:7\n"), "{text}");

    let (_, edits) = read_again(&all);
    assert_eq!(edits, ["new Ip(10.0.1.1) -> none"]);
    let mut last = all.clone();
    last.rotate_right(1);
    assert_eq!(read_again(&last).1, [""; 0], "the last one goes to the top");
    last.reverse();
    assert_eq!(read_again(&last).1, [""; 0], "all in another order");

    let mut commented = all.clone();
    commented[3] += "# a comment\n";
    assert_eq!(read_again(&commented).1, [""; 0], "of nothing");
    commented[3].insert_str(0, "# a comment\n");
    let edits = read_again(&commented).1;
    assert_eq!(edits, ["d2 Ip(10.0.0.2) -> Ip(10.0.0.2)"], "it moved in its document");
}

/// Puts edits into a set, as who follows them does.
fn followed(set: &PolicySet, edits: &[Edit]) -> PolicySet {
    let mut set = set.clone();
    macro_rules! follow {
        ($($kind:ident in $list:ident;)*) => {
            for edit in edits {
                match edit {
                    $(Edit::$kind { before, after } => {
                        let list = &mut set.$list;
                        if let Some(before) = before {
                            let at = list.iter().position(|one| one == before);
                            list.remove(at.expect("what was"));
                        }
                        if let Some(after) = after {
                            let key = |one: &Arc<_>| {
                                let meta = meta(one);
                                (meta.mesh.clone(), meta.namespace.clone(), meta.name.clone())
                            };
                            fn meta<T: HasMeta>(one: &Arc<T>) -> &crate::policy::Meta {
                                one.has_meta()
                            }
                            let at = list.iter().take_while(|one| key(one) < key(after)).count();
                            list.insert(at, Arc::clone(after));
                        }
                    })*
                }
            }
        };
    }
    follow! {
        Dataplane in dataplanes;
        TrafficRoute in traffic_routes;
        MeshTcpRoute in mesh_tcp_routes;
        MeshHttpRoute in mesh_http_routes;
        EndpointSlice in endpoint_slices;
        HttpRoute in http_routes;
        GrpcRoute in grpc_routes;
        TcpRoute in tcp_routes;
    }
    set
}

trait HasMeta {
    fn has_meta(&self) -> &crate::policy::Meta;
}

macro_rules! has_meta {
    ($($kind:ty),*) => {$(
        impl HasMeta for $kind {
            fn has_meta(&self) -> &crate::policy::Meta {
                &self.meta
            }
        }
    )*};
}

has_meta!(
    crate::policy::Dataplane,
    crate::policy::TrafficRoute,
    crate::policy::MeshTcpRoute,
    crate::policy::MeshHttpRoute,
    crate::policy::kubernetes::EndpointSlice,
    crate::policy::gateway::HttpRoute,
    crate::policy::gateway::GrpcRoute,
    crate::policy::gateway::TcpRoute
);

fn any_document() -> impl Strategy<Value = String> {
    let mesh = prop::sample::select(&["default", "default", "default", "other"][..]);
    let workloads = (0..5u8, 1..4u8, mesh, any::<bool>()).prop_map(|(name, address, mesh, odd)| {
        // An inbound without a tag is warned of.
        let tags = if odd { "tags: {kuma.io/service: web}" } else { "tags: {version: v1}" };
        workload(&format!("d{name}"), &format!("10.0.0.{address}"))
            .replace("mesh: default", &format!("mesh: {mesh}"))
            .replace("tags: {kuma.io/service: web}", tags)
    });
    let routes = (0..3u8, 0..3u32, any::<bool>()).prop_map(|(name, weight, shadow)| {
        let conf =
            format!("{{split: [{{weight: {weight}, destination: {{kuma.io/service: a}}}}]}}");
        let labels = if shadow { "labels: {kuma.io/effect: shadow}\n" } else { "" };
        route(&conf).replace("name: r", &format!("name: r{name}")) + labels
    });
    let slices =
        (0..3u8, 1..4u8).prop_map(|(name, at)| slice(&format!("s{name}"), &format!("10.1.0.{at}")));
    let lists = (0..5u8, 0..5u8).prop_map(|(one, other)| {
        let items = [one, other].map(|n| {
            format!(
                "- {{apiVersion: kuma.io/v1alpha1, kind: Dataplane, mesh: default, metadata: {{name: d{n}}}, \
                 spec: {{networking: {{address: 10.2.0.{n}, inbound: [{{port: 80, tags: {{kuma.io/service: a}}}}]}}}}}}\n"
            )
        });
        format!("apiVersion: v1\nkind: List\nitems:\n{}", items.concat())
    });
    let others = prop::sample::select(
        &[
            "# nothing\n",
            "~\n",
            "a: [1\n",
            "apiVersion: v1\nkind: ConfigMap\n",
            "type: Mesh\nname: other\n",
            "apiVersion: v1\nkind: List\nitems: []\n",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
            "type: TraficRoute\nname: r0\n",
        ][..],
    );
    prop_oneof![
        6 => workloads,
        3 => routes,
        2 => slices,
        1 => lists,
        2 => others.prop_map(str::to_owned),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Put(Index, Index, String),
    Insert(Index, Index, String),
    Remove(Index, Index),
    Move(Index, Index, Index, Index),
    Reverse(Index),
    NewFile(u8, Vec<String>),
    RemoveFile(Index),
    Rename(Index, u8),
    Mark(Index),
}

fn any_change() -> impl Strategy<Value = Change> {
    let (file, at) = (any::<Index>, any::<Index>);
    prop_oneof![
        6 => (file(), at(), any_document()).prop_map(|(f, a, d)| Change::Put(f, a, d)),
        2 => (file(), at(), any_document()).prop_map(|(f, a, d)| Change::Insert(f, a, d)),
        2 => (file(), at()).prop_map(|(f, a)| Change::Remove(f, a)),
        3 => (file(), at(), file(), at()).prop_map(|(f, a, g, b)| Change::Move(f, a, g, b)),
        1 => file().prop_map(Change::Reverse),
        1 => (0..9u8, prop::collection::vec(any_document(), 0..3))
            .prop_map(|(name, documents)| Change::NewFile(name, documents)),
        1 => file().prop_map(Change::RemoveFile),
        1 => (file(), 0..9u8).prop_map(|(f, name)| Change::Rename(f, name)),
        1 => file().prop_map(Change::Mark),
    ]
}

type Files = Vec<(String, Vec<String>)>;

fn change(files: &mut Files, change: Change) {
    let name = |n: u8| format!("{n}.yaml");
    if let Change::NewFile(n, documents) = change {
        // Sorted as a directory is; the same name twice is as `-f a -f a` of two directories.
        let at = files.partition_point(|(other, _)| *other < name(n));
        return files.insert(at, (name(n), documents));
    }
    let len = files.len();
    if len == 0 {
        return;
    }
    match change {
        Change::NewFile(..) => {}
        Change::Put(file, at, document) => {
            let (_, documents) = &mut files[file.index(len)];
            match documents.len() {
                0 => documents.push(document),
                len => documents[at.index(len)] = document,
            }
        }
        Change::Insert(file, at, document) => {
            let (_, documents) = &mut files[file.index(len)];
            documents.insert(at.index(documents.len() + 1), document);
        }
        Change::Remove(file, at) => {
            let (_, documents) = &mut files[file.index(len)];
            if !documents.is_empty() {
                documents.remove(at.index(documents.len()));
            }
        }
        Change::Move(file, at, to, there) => {
            let (_, documents) = &mut files[file.index(len)];
            if !documents.is_empty() {
                let moved = documents.remove(at.index(documents.len()));
                let (_, documents) = &mut files[to.index(len)];
                documents.insert(there.index(documents.len() + 1), moved);
            }
        }
        Change::Reverse(file) => files[file.index(len)].1.reverse(),
        Change::RemoveFile(file) => drop(files.remove(file.index(len))),
        Change::Rename(file, n) => files[file.index(len)].0 = name(n),
        Change::Mark(file) => {
            let (_, documents) = &mut files[file.index(len)];
            if let Some(first) = documents.first_mut() {
                *first = match first.strip_prefix('\u{feff}') {
                    Some(plain) => plain.to_owned(),
                    None => format!("\u{feff}{first}"),
                };
            }
        }
    }
}

fn texts(files: &Files) -> Texts {
    files.iter().map(|(name, documents)| file(name, &joined(documents))).collect()
}

proptest! {
    // Each case reads some dozens of sets.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was read before, a reading is that of its texts.
    #[test]
    fn reading_again_gives_what_reading_once_gives(
        documents in prop::collection::vec(prop::collection::vec(any_document(), 0..6), 1..4),
        changes in prop::collection::vec(prop::collection::vec(any_change(), 1..3), 1..8),
        with_mesh in any::<bool>(),
    ) {
        let mut files: Files =
            (0..).zip(documents).map(|(n, documents)| (format!("{n}.yaml"), documents)).collect();
        if with_mesh {
            files.push(("mesh.yaml".to_owned(), vec![MESH.to_owned()]));
        }
        let mut reader = Reader::new(LENIENT);
        let (mut before, edits) = reader.read(texts(&files));
        prop_assert_eq!(edits, Edits::Whole);
        for step in changes {
            for one in step {
                change(&mut files, one);
            }
            let (after, edits) = reader.read(texts(&files));
            let texts_read = after.set.documents.texts.clone();
            prop_assert_eq!(placed(&after), placed(&read(texts_read, &LENIENT)));
            let mut given: Vec<_> = texts(&files).into_iter().map(|t| (t.name, t.text)).collect();
            let mut kept: Vec<_> = after.set.documents.texts.iter().cloned().map(|t| (t.name, t.text)).collect();
            kept.retain(|(name, _)| !name.is_empty());
            given.sort();
            kept.sort();
            prop_assert_eq!(given, kept);
            if let Edits::Some(edits) = edits {
                let followed = followed(&before.set, &edits);
                let documents = after.set.documents.clone();
                prop_assert_eq!(PolicySet { documents, ..followed }, after.set.clone());
            }
            before = after;
        }
    }
}
