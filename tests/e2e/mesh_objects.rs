//! Objects that stand for services, dialled: a MeshService at the address of its status, and a
//! MeshExternalService that takes what is opened to it out of the inventory of Dataplanes.

use std::net::IpAddr;

use harness::root_or_skip;

use crate::bed::{Bed, count, version_of};

const SERVICE: &str = "240.88.0.1:5000";
const EXTERNAL: &str = "240.88.0.2:5001";

/// The MeshService of version 1.0, and as an external service the real of version 3.0.
fn objects(bed: &Bed) -> String {
    let outside = bed.reals_of("3.0").into_iter().find(IpAddr::is_ipv4).expect("a real");
    format!(
        "type: MeshService\nmesh: default\nname: api\nspec:\n  selector: {{dataplaneTags: \
         {{kuma.io/service: redis, version: '1.0'}}}}\n  ports: [{{port: 5000, targetPort: \
         6379}}]\nstatus: {{vips: [{{ip: 240.88.0.1}}]}}\n---\ntype: MeshExternalService\nmesh: \
         default\nname: outside\nspec:\n  match: {{port: 5001}}\n  endpoints: [{{address: {}, \
         port: 6379}}]\nstatus: {{vip: {{ip: 240.88.0.2}}}}\n",
        outside
    )
}

#[test]
fn mesh_service_and_external_service_are_reached_at_their_vips() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &objects(&bed));
    for client in ["web-1", "guest"] {
        for (vip, version) in [(SERVICE, "1.0"), (EXTERNAL, "3.0")] {
            let greetings = bed.dial(client, vip, 10_000..10_040);
            let met = count(greetings.iter().map(|(_, greeting)| greeting));
            assert!(met.keys().all(|name| version_of(name) == version), "{client} {vip}: {met:?}");
            assert_eq!(met.values().sum::<u64>(), 40);
        }
    }
    let shown = instance.json(&["show", "backends"]).expect("show backends");
    let services: Vec<&str> =
        shown.as_array().expect("rows").iter().filter_map(|row| row["service"].as_str()).collect();
    assert!(services.contains(&"api:5000") && services.contains(&"outside:5001"), "{services:?}");
    let explained = instance.json(&["explain", "--from", "web-1-v4", "--to", "outside:5001"]);
    let explained = explained.expect("explain");
    assert_eq!(explained["destination"]["address"], EXTERNAL, "{explained}");
    assert_eq!(explained["backends"][0]["kind"], "MeshExternalService");
}
