//! Questions about MeshServices and their like.

use super::{Answer, Input, Query, QueryError, explain};
use crate::{
    compile::{Assignment, Limits, compile},
    policy::PolicySet,
    resolve::{
        BackendState, DestinationKind, ResolveSettings, resolve,
        tests::world::{documents, settings},
    },
};

const WORLD: &str = "
type: Dataplane
mesh: default
name: one
networking:
  address: 10.0.0.1
  inbound:
  - {port: 8080, tags: {kuma.io/service: backend, kuma.io/zone: east}}
---
type: Dataplane
mesh: default
name: two
networking:
  address: 10.0.0.2
  inbound:
  - {port: 8080, tags: {kuma.io/service: backend, kuma.io/zone: west}}
---
type: MeshService
mesh: default
name: api
spec:
  selector: {dataplaneTags: {kuma.io/service: backend}}
  ports: [{port: 80, targetPort: 8080, appProtocol: http}]
---
type: MeshService
mesh: default
name: backend
spec:
  selector: {dataplaneTags: {kuma.io/service: backend}}
  ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: 8080}]
---
type: MeshExternalService
mesh: default
name: weather
spec:
  match: {port: 443}
  endpoints: [{address: 192.0.2.1, port: 443}]
  tls: {enabled: true}
---
type: MeshService
mesh: default
name: both
spec: {selector: {dataplaneRef: {name: one}}, ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: 8080}]}
";

fn ask_with(set: &PolicySet, settings: &ResolveSettings, to: &str) -> Result<Answer, QueryError> {
    let resolved = resolve(set, settings);
    let tables = compile(&resolved, &Assignment::default(), &Limits::default()).unwrap();
    let input = Input { set, settings, resolved: &resolved, tables: Some(&tables) };
    explain(&input, &Query { from: "one".to_owned(), to: to.to_owned(), ..Query::default() })
}

fn ask(to: &str) -> Result<Answer, QueryError> {
    ask_with(&documents(WORLD), &settings(), to)
}

#[test]
fn objects_are_named_with_and_without_their_port() {
    for to in ["api:80", "default/api:80", "api", "default/api"] {
        let answer = ask(to).unwrap();
        assert_eq!(answer.destination.service.as_deref(), Some("api:80"), "{to}");
        assert_eq!(answer.backends[0].kind, Some(DestinationKind::MeshService));
        assert_eq!(answer.protocol, "http");
    }
}

#[test]
fn service_by_its_tag_goes_before_an_object_of_its_name() {
    assert_eq!(ask("backend").unwrap().destination.service.as_deref(), Some("backend"));
    assert_eq!(ask("backend:8080").unwrap().destination.service.as_deref(), Some("backend"));
    assert_eq!(ask("backend:80").unwrap().destination.service.as_deref(), Some("backend:80"));
}

#[test]
fn names_that_mean_nothing_or_much_say_what_could_be_meant() {
    let error = ask("wether:443").unwrap_err();
    assert_eq!(error.message, "no service is named `wether:443`");
    assert_eq!(error.candidates, ["weather"]);
    let error = ask("both").unwrap_err();
    assert_eq!(error.message, "`both` can be dialled as 2 things");
    assert_eq!(error.candidates, ["default/both:80", "default/both:81"]);
}

#[test]
fn steps_say_what_an_object_is_and_why_it_is_refused() {
    let answer = ask("weather:443").unwrap();
    assert_eq!(answer.backends[0].state, BackendState::Invalid);
    for words in [
        "of MeshExternalService weather:443 in mesh default, allocated",
        "protocol: tcp, as weather:443 says",
        "no policy names weather:443: it is reached directly",
        "its endpoints expect TLS, which is not spoken here",
    ] {
        assert!(answer.steps.iter().any(|step| step.contains(words)), "{:#?}", answer.steps);
    }
}

#[test]
fn steps_say_which_zone_goes_first() {
    let settings = ResolveSettings { zone: Some("west".to_owned()), ..settings() };
    let answer = ask_with(&documents(WORLD), &settings, "api:80").unwrap();
    let reals: Vec<_> = answer.backends[0].reals.iter().map(|real| &*real.address).collect();
    assert_eq!(reals, ["10.0.0.2:8080"]);
    let words = "locality: 1 endpoint of api:80 in other zones left out while zone west has one";
    assert!(answer.steps.iter().any(|step| step.contains(words)), "{:#?}", answer.steps);
}
