//! What the kernel lacks is named in `status`, and what is said is what is used.

use std::collections::BTreeSet;

use harness::{Feature, root_or_skip};

use crate::bed::{Bed, MAGLEV, VIP4, split};

#[test]
fn status_names_the_hook_that_is_in_use() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("1.0", 1)], MAGLEV));
    bed.dial("web-1", VIP4, 17_000..17_010);

    let status = instance.json(&["status"]).expect("status");
    let links = status["links"].as_array().expect("links");
    assert!(!links.is_empty(), "{status:#}");
    let hooks: BTreeSet<_> = links.iter().filter_map(|link| link["hook"].as_str()).collect();
    let features = status["features"].as_array().expect("features");
    let tcx = features.iter().find(|row| row["feature"] == "tcx").expect("a line on tcx");
    let text = instance.balancer(&["status"]).expect("status");
    if Feature::Tcx.is_here() {
        assert_eq!(hooks, BTreeSet::from(["tcx"]), "{status:#}");
        assert_eq!((&tcx["here"], &tcx["used"]), (&true.into(), &"yes".into()), "{tcx}");
        assert!(text.contains("\n  tcx: yes\n"), "{text}");
    } else {
        assert_eq!(hooks, BTreeSet::from(["clsact"]), "{status:#}");
        assert_eq!((&tcx["here"], &tcx["used"]), (&false.into(), &"no, using clsact".into()));
        assert!(text.contains("\n  tcx: no, using clsact\n"), "{text}");
    }
    instance.balancer(&["unload"]).expect("unload");
}
