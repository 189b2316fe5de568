//! The form of Kuma 0.5.

use super::tests::read;
use crate::policy::{
    Api, SERVICE_TAG,
    testing::{LENIENT, STRICT, errors, exactly, warnings},
};

const OLD: &str = "type: TrafficRoute
name: r
mesh: default
sources: [{match: {service: web, region: eu}}]
destinations: [{match: {service: redis}}]
conf:
- {weight: 90, destination: {service: redis, version: '1.0'}}
- {destination: {service: redis, protocol: tcp}}
";

#[test]
fn the_form_of_kuma_0_5_becomes_a_split_with_prefixed_tags() {
    let route = read(OLD);
    assert_eq!(route.sources[0][SERVICE_TAG], "web");
    assert_eq!(route.sources[0]["region"], "eu");
    assert_eq!(route.destinations, ["redis"]);
    let weights: Vec<u32> = route.conf.split.iter().map(|entry| entry.weight).collect();
    assert_eq!(weights, [90, 0], "an absent weight is 0");
    assert_eq!(route.conf.split[1].destination["kuma.io/protocol"], "tcp");
    assert_eq!(route.conf.split[1].field, "conf[1].destination");
    assert_eq!(warnings(OLD, &LENIENT), ["conf", "conf[1].weight"]);
}

#[test]
fn the_form_of_kuma_0_5_is_refused_where_strictness_is_asked_for() {
    for options in [STRICT, exactly(Api::Kuma27), exactly(Api::Kuma29)] {
        let errors = errors(OLD, &options);
        assert!(errors.contains(&"conf".to_owned()), "{errors:?}");
        assert!(errors.contains(&"sources[0].match".to_owned()), "{errors:?}");
    }
}

#[test]
fn rules_of_the_old_form_name_its_fields() {
    let conf = |conf: &str| OLD.split("conf:").next().unwrap().to_owned() + "conf: " + conf + "\n";
    let cases: [(&str, &[&str]); 4] = [
        ("[]", &["conf"]),
        ("[{destination: {service: a}}]", &["conf"]),
        ("[{weight: 1, destination: {}}]", &["conf[0].destination", "conf[0].destination"]),
        ("[{weight: 1, destination: {service: ''}}]", &["conf[0].destination[\"service\"]"]),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(&conf(text), &LENIENT), expected, "{text}");
    }
}
