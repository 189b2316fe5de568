use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    Api, ReadOptions,
    testing::{LENIENT, errors, exactly, finding, holds, nearly, reading, warnings},
};

const KUMA_27: ReadOptions = exactly(Api::Kuma27);
const KUMA_29: ReadOptions = exactly(Api::Kuma29);
const TAGS: &str = "tags: {kuma.io/service: pay, kuma.io/protocol: http}";

fn document(fields: &str) -> String {
    format!("type: ExternalService\nname: pay\nmesh: default\n{fields}\n")
}

/// One at this address.
fn at(address: &str) -> String {
    document(&format!("{TAGS}\nnetworking: {{address: {address}}}"))
}

fn read(body: &str) -> ExternalService {
    let mut reading = reading(body, &LENIENT);
    assert!(reading.report.valid(), "{body}: {:#?}", reading.report);
    reading.set.external_services.pop_back().map(Arc::unwrap_or_clone).expect("an ExternalService")
}

#[test]
fn the_two_envelopes_hold_the_same_service() {
    let fields = "tags: {kuma.io/service: pay}\n  networking:\n    address: pay.example.com:443\n    tls: {enabled: true, server_name: x, caCert: {secret: a}}";
    let universal = read(&document(&fields.replace("\n  ", "\n")));
    let kubernetes = read(&format!(
        "apiVersion: kuma.io/v1alpha1\nkind: ExternalService\nmesh: default\nmetadata: {{name: pay, namespace: a}}\nspec:\n  {fields}"
    ));
    for service in [&universal, &kubernetes] {
        assert_eq!(service.meta.name, "pay", "it is cluster-scoped");
        assert_eq!(service.address, Host::Name("pay.example.com".to_owned()));
        assert_eq!((service.port.get(), service.tls), (443, true));
        assert_eq!(service.tags.get(SERVICE_TAG).map(String::as_str), Some("pay"));
    }
}

#[test]
fn addresses_are_hosts_with_ports() {
    for (address, ip) in [("192.0.2.1:80", "192.0.2.1"), ("'[2001:db8::1]:80'", "2001:db8::1")] {
        let service = read(&at(address));
        assert_eq!(service.address, Host::Ip(ip.parse().unwrap()));
        assert_eq!((service.port.get(), service.tls), (80, false));
    }
    for address in [
        "''",
        "a.example.com",
        "192.0.2.1",
        "'2001:db8::1'",
        "'a.example.com:'",
        "a.example.com:0",
        "a.example.com:65536",
        "a.example.com:x",
        "'a b:80'",
        "':80'",
        "'[2001:db8::1:80'",
        "0.0.0.0:80",
    ] {
        for options in [&LENIENT, &KUMA_27, &KUMA_29] {
            assert_eq!(errors(&at(address), options), ["networking.address"], "{address}");
        }
    }
    assert_eq!(errors(&at("'a b:x'"), &LENIENT), ["networking.address"; 2]);
}

#[test]
fn what_is_wrong_is_said_at_its_field() {
    let networking = "networking: {address: a.example.com:80}";
    let cases = [
        (TAGS.to_owned(), "networking"),
        (format!("{TAGS}\nnetworking: {{}}"), "networking.address"),
        (
            format!("{TAGS}\nnetworking: {{address: 'a:1', tls: {{serverName: ''}}}}"),
            "networking.tls.serverName",
        ),
        (
            format!("{TAGS}\nnetworking: {{address: 'a:1', tls: {{enabled: 1}}}}"),
            "networking.tls.enabled",
        ),
        (networking.to_owned(), "tags"),
        (format!("tags: {{a: b}}\n{networking}"), "tags"),
        (format!("tags: {{kuma.io/service: ''}}\n{networking}"), "tags[\"kuma.io/service\"]"),
        (
            format!("tags: {{kuma.io/service: a.example.com}}\n{networking}"),
            "tags[\"kuma.io/service\"]",
        ),
        (
            format!("tags: {{kuma.io/service: a, kuma.io/protocol: x}}\n{networking}"),
            "tags[\"kuma.io/protocol\"]",
        ),
    ];
    for (fields, field) in cases {
        for options in [&LENIENT, &KUMA_27, &KUMA_29] {
            assert_eq!(errors(&document(&fields), options), [field], "{fields}");
        }
    }
}

#[test]
fn it_is_gone_in_kuma_3_and_unknown_fields_are_said() {
    assert!(warnings(&at("a:1"), &LENIENT).is_empty());
    let gone = finding(&at("a:1"), &exactly(Api::Kuma3), "type");
    assert!(gone.is_error());
    assert_eq!(gone.message, "ExternalService does not exist in Kuma 3");
    assert!(gone.hint.is_some_and(|hint| hint.contains("MeshExternalService")));
    let unknown = at("a:1") + "networkin: {}\n";
    assert_eq!(warnings(&unknown, &LENIENT), ["networkin"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reading_never_panics_on_what_is_nearly_an_external_service(body in nearly(vec![
        at("'[2001:db8::1]:443', tls: {enabled: true, serverName: a}"),
    ])) {
        holds(&body)?;
    }
}
