use super::*;
use crate::kernel::{Direction, Hook};

/// A kernel as its release came, without what was carried back to it or built without.
fn kernel(major: u8, minor: u8) -> Probed {
    let mut probed = Probed::default();
    for feature in Feature::ALL {
        let answer = match feature {
            Feature::Clsact if Version(major, minor) >= Feature::Tcx.since() => {
                Presence::NotAsked("tcx is used")
            }
            _ if Version(major, minor) >= feature.since() => Presence::Here,
            _ => Presence::Lacking,
        };
        probed.answers.push((feature, answer));
    }
    probed
}

/// The same, but one feature answers otherwise.
fn with(mut probed: Probed, feature: Feature, answer: Presence) -> Probed {
    for (_, found) in probed.answers.iter_mut().filter(|(asked, _)| *asked == feature) {
        *found = answer.clone();
    }
    probed
}

#[test]
fn every_feature_is_listed_once_under_a_name_of_its_own() {
    let mut names: Vec<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Feature::ALL.len());
}

#[test]
fn linux_5_4_is_too_old_and_is_told_by_what() {
    let judgement = kernel(5, 4).judgement();
    assert!(!judgement.runs() && !judgement.loads());
    assert_eq!(judgement.lacks.first(), Some(&Feature::MmapableArrays));
    assert_eq!(judgement.first(), Some(Version(5, 19)));
    let refusal = judgement.refusal("5.4.0").expect("too old");
    assert!(
        refusal.starts_with(
            "this kernel (5.4.0) cannot run balancer: it lacks mmapable arrays (Linux 5.5), "
        ),
        "{refusal}"
    );
    assert!(!refusal.contains("tcx") && !refusal.contains("bounded loops"), "{refusal}");
}

#[test]
fn linux_5_10_lacks_four_features_whose_first_kernels_are_named() {
    assert_eq!(
        kernel(5, 10).judgement().refusal("5.10.0").as_deref(),
        Some(
            "this kernel (5.10.0) cannot run balancer: it lacks helper ktime_get_coarse_ns \
             (Linux 5.11), atomic operations that return the old value (Linux 5.12), helper loop \
             (Linux 5.17), batched updates of arrays of maps (Linux 5.19)"
        )
    );
}

#[test]
fn linux_6_1_runs_with_fall_backs() {
    let judgement = kernel(6, 1).judgement();
    assert!(judgement.runs() && judgement.loads());
    assert_eq!(judgement.fall_backs, [Feature::Tcx, Feature::Ipv6ChecksumFlag]);
    assert_eq!(judgement.refusal("6.1.0"), None);
}

#[test]
fn newer_kernel_runs_without_fall_backs_and_does_not_need_clsact() {
    let judgement = kernel(6, 18).judgement();
    assert!(judgement.runs());
    assert_eq!(judgement.fall_backs, []);
}

#[test]
fn new_kernel_that_was_built_without_a_feature_does_not_run() {
    let judgement = with(kernel(6, 18), Feature::Loop, Presence::Lacking).judgement();
    assert_eq!(judgement.lacks, [Feature::Loop]);
}

#[test]
fn old_kernel_that_a_distribution_gave_the_features_runs() {
    let mut probed = kernel(4, 18);
    for feature in Feature::ALL.into_iter().filter(|f| matches!(f.need(), Need::Always(_))) {
        probed = with(probed, feature, Presence::Here);
    }
    assert!(probed.judgement().runs());
}

#[test]
fn neither_tcx_nor_clsact_is_a_refusal_with_the_modules_to_load() {
    let judgement = with(kernel(6, 1), Feature::Clsact, Presence::Lacking).judgement();
    assert_eq!(judgement.lacks, [Feature::Clsact]);
    assert!(judgement.loads(), "the programs themselves can be tried");
    assert_eq!(Feature::Clsact.remedy(), Some("modprobe -a sch_ingress cls_bpf"));
}

#[test]
fn what_an_administrator_can_switch_on_is_not_blamed_on_the_kernel() {
    let probed = with(kernel(6, 18), Feature::Jit, Presence::Lacking);
    let probed = with(probed, Feature::Loop, Presence::NotAsked("needs the JIT compiler"));
    let judgement = probed.judgement();
    assert!(!judgement.runs() && !judgement.loads());
    assert_eq!(
        judgement.refusal("6.18.0").as_deref(),
        Some("this node is not ready for balancer: it lacks the JIT compiler")
    );
    assert_eq!(judgement.first(), None);
}

#[test]
fn what_is_said_of_tcx_is_what_is_in_use() {
    let link = |interface: &str, hook| Link {
        interface: interface.into(),
        direction: Direction::Ingress,
        hook,
        mode: None,
        program: 1,
        live: true,
    };
    let links = [link("a", Hook::Tcx), link("b", Hook::Clsact), link("b", Hook::Clsact)];
    assert_eq!(features::hooks_in_use(true, &links[..1]), "yes");
    assert_eq!(features::hooks_in_use(true, &links), "yes, but using clsact on b");
    assert_eq!(features::hooks_in_use(true, &[]), "yes");
    assert_eq!(features::hooks_in_use(false, &links[1..]), "no, using clsact");
    assert_eq!(features::hooks_in_use(false, &[]), "no, using clsact");
}

#[test]
fn docs_have_a_row_for_every_feature() {
    let docs = include_str!("../../../../docs/requirements.md");
    for feature in Feature::ALL {
        let row =
            format!("| {} | {} | {} |", feature.name(), feature.since(), feature.without_it());
        assert!(docs.contains(&row), "docs/requirements.md lacks: {row}");
    }
}
