use std::sync::Arc;

use crate::policy::{
    Api, HashFunction, LoadBalancer, SERVICE_TAG, TrafficRoute,
    http::{HostRewrite, PathRewrite, StringMatcher},
    testing::{LENIENT, STRICT, errors, exactly, finding, reading, route, warnings},
};

/// The route of a text that has no error.
pub(super) fn read(body: &str) -> TrafficRoute {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{:#?}", reading.report);
    Arc::unwrap_or_clone(reading.set.traffic_routes.remove(0))
}

fn http(entry: &str) -> String {
    route(&format!("{{destination: {{kuma.io/service: a}}, http: [{entry}]}}"))
}

const TO: &str = "destination: {kuma.io/service: a}";

/// Semantics 3.3: every row, one document each. Strict and lenient agree on all of them.
#[test]
fn every_rule_is_a_violation_of_its_field() {
    let with = |sources: &str, destinations: &str, conf: &str| {
        format!(
            "type: TrafficRoute\nname: r\nmesh: default\nsources: {sources}\ndestinations: {destinations}\nconf: {conf}\n"
        )
    };
    let from = |tags: &str| {
        with(
            &format!("[{{match: {tags}}}]"),
            "[{match: {kuma.io/service: b}}]",
            &format!("{{{TO}}}"),
        )
    };
    let to = |tags: &str| {
        with(
            "[{match: {kuma.io/service: a}}]",
            &format!("[{{match: {tags}}}]"),
            &format!("{{{TO}}}"),
        )
    };
    let matched = |matcher: &str| http(&format!("{{match: {matcher}, {TO}}}"));
    let modified = |modify: &str| {
        http(&format!("{{match: {{path: {{prefix: /a}}}}, modify: {modify}, {TO}}}"))
    };
    let balanced = |balancer: &str| route(&format!("{{{TO}, loadBalancer: {balancer}}}"));
    let cases: Vec<(String, &[&str])> = vec![
        (from("{}"), &["sources[0].match", "sources[0].match"]),
        (from("{version: a}"), &["sources[0].match"]),
        (from("{kuma.io/service: a, '': b}"), &["sources[0].match"]),
        (from("{kuma.io/service: a, 'a b': c}"), &["sources[0].match[\"a b\"]"]),
        (from("{kuma.io/service: ''}"), &["sources[0].match[\"kuma.io/service\"]"]),
        (from("{kuma.io/service: 'a*'}"), &["sources[0].match[\"kuma.io/service\"]"]),
        (from("{kuma.io/service: a, x: 'b c'}"), &["sources[0].match[\"x\"]"]),
        (with("[]", "[{match: {kuma.io/service: b}}]", &format!("{{{TO}}}")), &["sources"]),
        (with("[{match: {kuma.io/service: b}}]", "[]", &format!("{{{TO}}}")), &["destinations"]),
        (to("{}"), &["destinations[0].match", "destinations[0].match"]),
        (
            to("{kuma.io/service: a, x: b}"),
            &["destinations[0].match", "destinations[0].match[\"x\"]"],
        ),
        (
            to("{x: b}"),
            &["destinations[0].match", "destinations[0].match", "destinations[0].match[\"x\"]"],
        ),
        (route(""), &["conf"]),
        (route("{}"), &["conf"]),
        (route(&format!("{{{TO}, split: [{{weight: 1, {TO}}}]}}")), &["conf"]),
        (route("{split: []}"), &["conf.split"]),
        (route(&format!("{{split: [{{{TO}}}, {{weight: 1, {TO}}}]}}")), &["conf.split[0].weight"]),
        (route(&format!("{{split: [{{weight: 0, {TO}}}]}}")), &["conf.split"]),
        (route("{split: [{weight: 1, destination: {}}]}"), &["conf.split[0].destination"; 2]),
        (route("{split: [{weight: 1}]}"), &["conf.split[0].destination"; 2]),
        (
            route("{split: [{weight: 1, destination: {version: a}}]}"),
            &["conf.split[0].destination"],
        ),
        (route("{destination: {version: a}}"), &["conf.destination"]),
        (
            route("{destination: {kuma.io/service: 'a b'}}"),
            &["conf.destination[\"kuma.io/service\"]"],
        ),
        (route("[]"), &["conf"]),
        (http(&format!("{{match: {{}}, {TO}}}")), &["conf.http[0].match"]),
        (http("{match: {path: {prefix: /a}}}"), &["conf.http[0]"]),
        (
            http(&format!(
                "{{match: {{path: {{prefix: /a}}}}, {TO}, split: [{{weight: 1, {TO}}}]}}"
            )),
            &["conf.http[0]"],
        ),
        (http("{match: {path: {prefix: /a}}, split: []}"), &["conf.http[0].split"]),
        (
            http(&format!("{{match: {{path: {{prefix: /a}}}}, split: [{{weight: 0, {TO}}}]}}")),
            &["conf.http[0].split"],
        ),
        (
            http(&format!(
                "{{match: {{path: {{prefix: /a}}}}, split: [{{{TO}}}, {{weight: 1, {TO}}}]}}"
            )),
            &["conf.http[0].split[0].weight"],
        ),
        (matched("{method: {}}"), &["conf.http[0].match.method"]),
        (matched("{path: {}}"), &["conf.http[0].match.path"]),
        (matched("{headers: {x: {}}}"), &["conf.http[0].match.headers[\"x\"]"]),
        (matched("{headers: {}}"), &["conf.http[0].match.headers"]),
        (matched("{headers: {'': {exact: a}}}"), &["conf.http[0].match.headers[\"\"]"]),
        (matched("{path: {prefix: ''}}"), &["conf.http[0].match.path.prefix"]),
        (matched("{method: {prefix: ''}}"), &["conf.http[0].match.method.prefix"]),
        (matched("{headers: {x: {regex: ''}}}"), &["conf.http[0].match.headers[\"x\"].regex"]),
        (matched("{path: {regex: ''}}"), &["conf.http[0].match.path.regex"]),
        (matched("{path: {exact: ''}}"), &[]),
        (matched("{path: {exact: a, prefix: b}}"), &["conf.http[0].match.path"]),
        (modified("{path: {}}"), &["conf.http[0].modify.path"]),
        (modified("{path: {rewritePrefix: ''}}"), &["conf.http[0].modify.path.rewritePrefix"]),
        (
            http(&format!(
                "{{match: {{path: {{exact: /a}}}}, modify: {{path: {{rewritePrefix: /b}}}}, {TO}}}"
            )),
            &["conf.http[0].modify.path.rewritePrefix"],
        ),
        (
            modified("{path: {regex: {}}}"),
            &[
                "conf.http[0].modify.path.regex.pattern",
                "conf.http[0].modify.path.regex.substitution",
            ],
        ),
        (
            modified("{path: {regex: {pattern: a, substitution: ''}}}"),
            &["conf.http[0].modify.path.regex.substitution"],
        ),
        (
            modified("{path: {rewritePrefix: /b, regex: {pattern: a, substitution: b}}}"),
            &["conf.http[0].modify.path"],
        ),
        (modified("{host: {}}"), &["conf.http[0].modify.host"]),
        (modified("{host: {value: ''}}"), &["conf.http[0].modify.host.value"]),
        (
            modified("{host: {fromPath: {pattern: '', substitution: ''}}}"),
            &[
                "conf.http[0].modify.host.fromPath.pattern",
                "conf.http[0].modify.host.fromPath.substitution",
            ],
        ),
        (
            modified("{requestHeaders: {add: [{name: '', value: ''}]}}"),
            &[
                "conf.http[0].modify.requestHeaders.add[0].name",
                "conf.http[0].modify.requestHeaders.add[0].value",
            ],
        ),
        (
            modified("{requestHeaders: {add: [{name: ':path', value: a}]}}"),
            &["conf.http[0].modify.requestHeaders.add[0].name"],
        ),
        (
            modified("{responseHeaders: {add: [{name: Host, value: a}]}}"),
            &["conf.http[0].modify.responseHeaders.add[0].name"],
        ),
        (
            modified("{responseHeaders: {remove: [{name: x}, {name: host}]}}"),
            &["conf.http[0].modify.responseHeaders.remove[1].name"],
        ),
        (
            modified("{responseHeaders: {remove: [{}]}}"),
            &["conf.http[0].modify.responseHeaders.remove[0].name"],
        ),
        (modified("{requestHeaders: {remove: [{name: HOST}]}}"), &[]),
        (
            balanced("{leastRequest: {choiceCount: 1}}"),
            &["conf.loadBalancer.leastRequest.choiceCount"],
        ),
        (balanced("{leastRequest: {choiceCount: 0}}"), &[]),
        (
            balanced("{leastRequest: {choiceCount: 256}}"),
            &["conf.loadBalancer.leastRequest.choiceCount"],
        ),
        (balanced("{ringHash: {hashFunction: MD5}}"), &["conf.loadBalancer.ringHash.hashFunction"]),
        (balanced("{random: {}, maglev: {}}"), &["conf.loadBalancer"]),
    ];
    for (body, expected) in &cases {
        assert_eq!(errors(body, &LENIENT), *expected, "{body}");
        assert_eq!(errors(body, &STRICT), *expected, "strict: {body}");
        assert_eq!(errors(body, &exactly(Api::Kuma27)), *expected, "kuma-2.7: {body}");
    }
}

#[test]
fn a_policy_without_anything_has_all_three_violations() {
    let body = "type: TrafficRoute\nname: r\nmesh: default\n";
    assert_eq!(errors(body, &LENIENT), ["sources", "destinations", "conf"]);
}

#[test]
fn all_violations_are_collected_in_the_order_of_their_places() {
    let body = route(
        "
  loadBalancer: {leastRequest: {choiceCount: 1}}
  http:
  - match: {path: {prefix: ''}}
    split:
    - destination: {kuma.io/service: a}
    - {weight: -1, destination: {version: b}}
  split:
  - {weight: 0, destination: {kuma.io/service: 'a b'}}",
    );
    assert_eq!(
        errors(&body, &LENIENT),
        [
            "conf.loadBalancer.leastRequest.choiceCount",
            "conf.http[0].match.path.prefix",
            "conf.http[0].split[0].weight",
            "conf.http[0].split[1].weight",
            "conf.http[0].split[1].destination",
            "conf.split",
            "conf.split[0].destination[\"kuma.io/service\"]",
        ]
    );
    let finding = finding(&body, &LENIENT, "conf.http[0].split[1].weight");
    let span = finding.span.unwrap();
    assert_eq!((span.line, span.column, span.len), (12, 16, 2));
}

#[test]
fn weights_are_whole_numbers_that_sum_to_32_bits() {
    let weights = |a: &str, b: &str| {
        route(&format!("{{split: [{{weight: {a}, {TO}}}, {{weight: {b}, {TO}}}]}}"))
    };
    assert_eq!(errors(&weights("4294967294", "1"), &LENIENT), [""; 0]);
    assert_eq!(errors(&weights("4294967295", "1"), &LENIENT), ["conf.split"]);
    for wrong in [
        "-1",
        "4294967296",
        "99999999999999999999999",
        "1.5",
        "10.0",
        "1e2",
        "'1'",
        "yes",
        "true",
        "0x10",
        "010",
        "[1]",
        "{}",
    ] {
        assert_eq!(errors(&weights("1", wrong), &LENIENT), ["conf.split[1].weight"], "{wrong}");
    }
}

#[test]
fn a_weight_that_cannot_be_read_says_nothing_about_the_sum() {
    let body = route(&format!("{{split: [{{weight: x, {TO}}}]}}"));
    assert_eq!(errors(&body, &LENIENT), ["conf.split[0].weight"]);
}

#[test]
fn leniencies_of_d3_warn_and_strict_takes_them_back() {
    let cases = [
        (route(&format!("{{split: [{{{TO}}}]}}")), "conf.split[0].weight"),
        (http(&format!("{{{TO}}}")), "conf.http[0].match"),
        (
            route(&format!("{{http: [{{match: {{method: {{exact: GET}}}}, {TO}}}, {{{TO}}}]}}")),
            "conf",
        ),
        (http(&format!("{{match: {{method: GET}}, {TO}}}")), "conf.http[0].match.method"),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{body}");
        assert!(warnings(&body, &LENIENT).contains(&field.to_owned()), "{body}");
        for options in [STRICT, exactly(Api::Kuma27), exactly(Api::Kuma29)] {
            assert!(errors(&body, &options).contains(&field.to_owned()), "{body}");
        }
    }
}

#[test]
fn a_single_entry_without_weight_takes_everything() {
    assert_eq!(read(&route(&format!("{{split: [{{{TO}}}]}}"))).conf.split[0].weight, 1);
}

#[test]
fn an_outer_split_may_only_be_missing_if_the_last_entry_takes_everything() {
    let always_first =
        route(&format!("{{http: [{{{TO}}}, {{match: {{method: {{exact: GET}}}}, {TO}}}]}}"));
    assert_eq!(errors(&always_first, &LENIENT), ["conf"]);
    let last = read(&route(&format!("{{http: [{{{TO}}}]}}")));
    assert!(last.conf.split.is_empty() && !last.conf.http[0].has_match);
}

#[test]
fn the_http_section_is_kept() {
    let body = http(
        r"{match: {method: {prefix: G}, path: {prefix: /a}, headers: {X-A: {regex: '^(yes|1)$'}}},
           modify: {path: {rewritePrefix: /b}, host: {fromPath: {pattern: '^/([^/]+)', substitution: '\1.internal'}},
                    requestHeaders: {add: [{name: x, value: y, append: true}], remove: [{name: z}]}},
           destination: {kuma.io/service: offers}}",
    );
    let route = read(&body);
    let entry = &route.conf.http[0];
    assert!(entry.has_match);
    assert_eq!(entry.matches.method, Some(StringMatcher::Prefix("G".to_owned())));
    let StringMatcher::Regex(pattern) = &entry.matches.headers["X-A"] else { panic!("{entry:?}") };
    assert_eq!(pattern.text(), "^(yes|1)$");
    assert_eq!(entry.modify.path, Some(PathRewrite::Prefix("/b".to_owned())));
    assert!(
        matches!(&entry.modify.host, Some(HostRewrite::FromPath(s)) if s.replacement() == r"\1.internal")
    );
    assert!(entry.modify.request_headers.add[0].append);
    assert_eq!(entry.modify.request_headers.remove, ["z"]);
    assert_eq!(entry.split[0].destination[SERVICE_TAG], "offers");
    assert_eq!(warnings(&body, &LENIENT), [""; 0]);
    let span = route.conf.http_span.unwrap();
    assert_eq!((span.line, span.column, span.len), (6, 43, 4));
}

#[test]
fn patterns_are_compiled_and_strict_only_warns() {
    let cases = [
        (
            http(&format!("{{match: {{path: {{regex: '['}}}}, {TO}}}")),
            "conf.http[0].match.path.regex",
        ),
        (
            http(&format!("{{match: {{path: {{regex: '(?=a)'}}}}, {TO}}}")),
            "conf.http[0].match.path.regex",
        ),
        (
            http(&format!("{{match: {{path: {{regex: '(a{{1000}}){{1000}}'}}}}, {TO}}}")),
            "conf.http[0].match.path.regex",
        ),
        (
            http(&format!(
                r"{{match: {{path: {{prefix: /a}}}}, modify: {{path: {{regex: {{pattern: '(a)', substitution: '\2'}}}}}}, {TO}}}"
            )),
            "conf.http[0].modify.path.regex.substitution",
        ),
    ];
    for (body, field) in cases {
        assert_eq!(errors(&body, &LENIENT), [field], "{body}");
        assert_eq!(errors(&body, &exactly(Api::Kuma27)), [""; 0], "{body}");
        assert!(warnings(&body, &exactly(Api::Kuma27)).contains(&field.to_owned()), "{body}");
    }
    let message = finding(
        &http(&format!("{{match: {{path: {{regex: 'a('}}}}, {TO}}}")),
        &LENIENT,
        "conf.http[0].match.path.regex",
    )
    .message;
    assert_eq!(message, "is no regular expression: unclosed group");
}

#[test]
fn all_five_load_balancers_are_read_with_all_their_fields() {
    let of = |balancer: &str| {
        read(&route(&format!("{{{TO}, loadBalancer: {balancer}}}"))).conf.load_balancer
    };
    assert_eq!(of("{}"), None);
    assert_eq!(of("{roundRobin: {}}"), Some(LoadBalancer::RoundRobin));
    assert_eq!(of("{random: {}}"), Some(LoadBalancer::Random));
    assert_eq!(of("{maglev: {}}"), Some(LoadBalancer::Maglev));
    assert_eq!(of("{leastRequest: {}}"), Some(LoadBalancer::LeastRequest { choice_count: 2 }));
    assert_eq!(
        of("{leastRequest: {choiceCount: 255}}"),
        Some(LoadBalancer::LeastRequest { choice_count: 255 })
    );
    let ring = |function, min_ring_size, max_ring_size| {
        Some(LoadBalancer::RingHash { function, min_ring_size, max_ring_size })
    };
    assert_eq!(
        of("{ringHash: {hashFunction: MURMUR_HASH_2}}"),
        ring(HashFunction::MurmurHash2, 1024, 8_388_608)
    );
    assert_eq!(
        of("{ringHash: {hashFunction: XX_HASH, minRingSize: '100', maxRingSize: 200}}"),
        ring(HashFunction::XxHash, 100, 200)
    );
    assert_eq!(
        of("{ring_hash: {hash_function: XX_HASH, min_ring_size: 0, max_ring_size: '2048'}}"),
        ring(HashFunction::XxHash, 1024, 2048),
        "snake_case, and 0 is absent"
    );
}

#[test]
fn leniencies_of_d7_warn_and_strict_takes_them_back() {
    let field = "conf.loadBalancer.ringHash.hashFunction";
    for ring in ["{}", "{hashFunction: XXHash}", "{hashFunction: MurmurHash2}"] {
        let body = route(&format!("{{{TO}, loadBalancer: {{ringHash: {ring}}}}}"));
        assert_eq!(errors(&body, &LENIENT), [""; 0], "{ring}");
        assert_eq!(warnings(&body, &LENIENT), [field], "{ring}");
        assert_eq!(errors(&body, &STRICT), [field], "{ring}");
    }
}

#[test]
fn ring_sizes_that_make_no_sense_are_errors_unless_exactly_kumas_rules_apply() {
    let ring = "conf.loadBalancer.ringHash";
    let cases = [
        ("minRingSize: 300, maxRingSize: 200", "maxRingSize"),
        ("maxRingSize: 1000", "maxRingSize"),
        ("minRingSize: 8388609", "minRingSize"),
        ("maxRingSize: 99999999999", "maxRingSize"),
    ];
    for (sizes, field) in cases {
        let body = route(&format!(
            "{{{TO}, loadBalancer: {{ringHash: {{hashFunction: XX_HASH, {sizes}}}}}}}"
        ));
        let field = format!("{ring}.{field}");
        assert_eq!(errors(&body, &LENIENT), std::slice::from_ref(&field), "{sizes}");
        assert_eq!(errors(&body, &exactly(Api::Kuma27)), [""; 0], "{sizes}");
        assert_eq!(warnings(&body, &exactly(Api::Kuma27)), [field], "{sizes}");
    }
}

#[test]
fn a_load_balancer_without_value_is_reported_as_not_set() {
    let body = route(&format!("\n  {TO}\n  loadBalancer:\n    maglev:"));
    assert_eq!(read(&body).conf.load_balancer, None);
    assert_eq!(warnings(&body, &LENIENT), ["conf.loadBalancer.maglev"]);
}

#[test]
fn the_old_tag_name_in_the_new_form_is_an_error_with_a_hint() {
    let body = route("{destination: {service: redis}}");
    let finding = finding(&body, &LENIENT, "conf.destination");
    assert!(finding.hint.unwrap().contains("`kuma.io/service`"));
}

#[test]
fn wildcards_are_read_and_kept() {
    let body = "type: TrafficRoute\nname: r\nmesh: default\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: {loadBalancer: {roundRobin: {}}, destination: {kuma.io/service: '*', version: '*'}}\n";
    let route = read(body);
    assert_eq!(route.destinations, ["*"]);
    assert_eq!(route.conf.split[0].destination["version"], "*");
}

#[test]
fn traffic_route_does_not_exist_in_kuma_3() {
    assert_eq!(errors(&route(&format!("{{{TO}}}")), &exactly(Api::Kuma3)), ["type"]);
}
