//! What does not concern us is unchanged, whatever the project is.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn wanted(service: &str) -> Wanted {
    Wanted {
        service: service.to_owned(),
        options: vec![("target".to_owned(), "deployment/orders".to_owned())],
        told: ("MIRRORD".to_owned(), "{\"a\":\"$b\"}".to_owned()),
    }
}

/// As compose merges files: maps key by key, what is tagged as its tag says, else the later value.
fn merged(project: &Value, overlay: &Overlay) -> Value {
    let mut project = project.clone();
    for (service, key, change) in overlay.changes() {
        let there = &mut project["services"][service][key];
        match change {
            Change::Reset => *there = Value::Null,
            Change::Override(value) => *there = value.clone(),
            Change::Merge(Value::Object(more)) if there.is_object() => {
                let map = there.as_object_mut().expect("a map");
                map.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            Change::Merge(value) => *there = value.clone(),
        }
    }
    project
}

fn services(project: &Value) -> &Map<String, Value> {
    project["services"].as_object().expect("services")
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,5}"
}

/// Any value that compose could tell of a key that we do not know.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A service as compose resolves one, with keys that concern us and others.
fn service() -> impl Strategy<Value = Value> {
    let network = prop_oneof![
        Just(Value::Null),
        prop::collection::vec(word(), 0..3).prop_map(|names| json!({"aliases": names})),
    ];
    let networks = prop::collection::btree_map(word(), network, 0..3);
    let ports = prop::collection::vec(1u16.., 0..3);
    let sysctls = prop::collection::btree_map("(net|kernel)\\.[a-z]{1,4}", "[0-9]", 0..3);
    let others = prop::collection::btree_map("[a-z]{3,9}", anything(), 0..5);
    (networks, ports, sysctls, others, prop::option::of(word())).prop_map(
        |(networks, ports, sysctls, others, hostname)| {
            let ports: Vec<Value> = ports.iter().map(|port| json!({"target": port})).collect();
            let mut service: Map<String, Value> = others.into_iter().collect();
            service.retain(|key, _| !matches!(key.as_str(), "scale" | "deploy" | "links"));
            service.insert("networks".to_owned(), json!(networks));
            service.insert("ports".to_owned(), ports.into());
            service.insert("sysctls".to_owned(), json!(sysctls));
            service
                .insert("depends_on".to_owned(), json!({"db": {"condition": "service_healthy"}}));
            if let Some(hostname) = hostname {
                service.insert("hostname".to_owned(), hostname.into());
            }
            Value::Object(service)
        },
    )
}

fn project() -> impl Strategy<Value = Value> {
    let names = "(mirrord-)?[a-c](-2)?";
    (prop::collection::btree_map(names, service(), 1..6), anything()).prop_map(
        |(services, volumes)| json!({"name": "shop", "services": services, "volumes": volumes}),
    )
}

proptest! {
    #[test]
    fn what_does_not_concern_us_is_unchanged(project in project(), which in any::<prop::sample::Index>()) {
        let name = which.get(&services(&project).keys().cloned().collect::<Vec<_>>()).clone();
        let overlay = Overlay::of(&project, &[wanted(&name)], "mirrord").expect("an overlay");
        let after = merged(&project, &overlay);
        let stand = &overlay.stands[0];
        prop_assert!(!services(&project).contains_key(&stand.provider), "a name of its own");
        prop_assert_eq!(&after["volumes"], &project["volumes"]);
        for (other, before) in services(&project) {
            if *other != name {
                prop_assert_eq!(&after["services"][other], before);
            }
        }
        let (before, now) = (&project["services"][&name], &after["services"][&name]);
        let ours = |key: &str| KEYS.contains(&key) || matches!(key, "sysctls" | "network_mode" | "depends_on");
        for (key, value) in before.as_object().expect("a service") {
            if !ours(key) {
                prop_assert_eq!(&now[key], value, "{}", key);
            }
        }
        prop_assert_eq!(&now["depends_on"]["db"], &before["depends_on"]["db"]);
    }

    #[test]
    fn what_is_taken_from_a_service_is_given_to_its_stand_in(project in project(), which in any::<prop::sample::Index>()) {
        let name = which.get(&services(&project).keys().cloned().collect::<Vec<_>>()).clone();
        let overlay = Overlay::of(&project, &[wanted(&name)], "mirrord").expect("an overlay");
        let after = merged(&project, &overlay);
        let (before, now) = (&project["services"][&name], &after["services"][&name]);
        let stand_in = &after["services"][&overlay.stands[0].provider];
        for key in KEYS.iter().filter(|key| **key != "networks") {
            prop_assert_eq!(&stand_in[*key], &before[*key], "{}", key);
            prop_assert!(now[*key].is_null());
        }
        for (network, value) in before["networks"].as_object().expect("networks") {
            let aliases = stand_in["networks"][network]["aliases"].as_array().expect("aliases");
            prop_assert!(aliases.contains(&json!(name)));
            for alias in value["aliases"].as_array().into_iter().flatten() {
                prop_assert!(aliases.contains(alias));
            }
        }
        let of = |service: &Value| service["sysctls"].as_object().cloned().unwrap_or_default();
        let mut both = of(now);
        both.extend(of(stand_in));
        prop_assert_eq!(both, of(before));
    }
}

fn shop(orders: Value) -> Value {
    json!({"name": "shop", "services": {"orders": orders, "mirrord-orders": {"image": "x"}}})
}

#[test]
fn the_file_is_one_that_a_reader_understands() {
    let orders = json!({"image": "x", "networks": {"default": null}, "ports": [{"target": 80}]});
    let overlay = Overlay::of(&shop(orders), &[wanted("orders")], "mirrord").expect("an overlay");
    let expected = r#"services:
  "orders":
    network_mode: "container:shop-mirrord-orders-2"
    depends_on: {"mirrord-orders-2":{"condition":"service_started"}}
    networks: !reset null
    ports: !reset null
  "mirrord-orders-2":
    provider: {"options":{"target":"deployment/orders"},"type":"mirrord"}
    environment: {"MIRRORD":"{\"a\":\"$$b\"}"}
    networks: {"default":{"aliases":["orders"]}}
    ports: [{"target":80}]
networks:
  "default": {}
"#;
    assert_eq!(overlay.to_string(), expected);
}

#[test]
fn what_is_in_the_network_of_a_service_goes_along() {
    let project = json!({"name": "shop", "services": {
        "orders": {"image": "x"}, "debug": {"image": "y", "network_mode": "service:orders"},
    }});
    let overlay = Overlay::of(&project, &[wanted("orders")], "mirrord").expect("an overlay");
    let after = merged(&project, &overlay);
    assert_eq!(after["services"]["debug"]["network_mode"], "container:shop-mirrord-orders");
    assert!(after["services"]["debug"]["depends_on"]["mirrord-orders"].is_object());
}

#[test]
fn services_that_cannot_stand_in_a_targets_place_are_refused() {
    let refused = |orders: Value| {
        Overlay::of(&shop(orders), &[wanted("orders")], "mirrord").expect_err("refused").to_string()
    };
    assert_eq!(
        refused(json!({"scale": 2})),
        "service orders is to run 2 times, and only one container can take a target's place"
    );
    assert!(refused(json!({"deploy": {"replicas": 3}})).contains("3 times"));
    assert_eq!(refused(json!({"network_mode": "host"})), "service orders has network_mode: host");
    assert!(refused(json!({"links": ["db"]})).contains("links"));
    assert!(refused(json!({"provider": {"type": "x"}})).contains("provider"));
    let unknown =
        Overlay::of(&shop(json!({})), &[wanted("order")], "mirrord").expect_err("unknown");
    assert_eq!(unknown.to_string(), "the project has no service \"order\"");
    assert_eq!(Overlay::of(&json!({}), &[], "mirrord"), Err(Refusal::NoProject));
}
