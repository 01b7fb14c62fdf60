use proptest::prelude::*;

use super::*;

fn ask(method: &str, target: &str) -> Classified {
    classify(&AuthzRequest { method, target, ..AuthzRequest::default() })
}

fn post<'a>(
    target: &'a str,
    content_type: Option<&'a str>,
    length: Option<&'a str>,
    body: Option<&'a [u8]>,
) -> Classified {
    classify(&AuthzRequest { method: "POST", target, content_type, content_length: length, body })
}

#[track_caller]
fn destroys(method: &str, target: &str) -> Destroying {
    match ask(method, target) {
        Classified::Destroys(destroying) => destroying,
        other => panic!("{method} {target}: {other:?}"),
    }
}

fn volume(name: &str, force: bool) -> Step {
    Step::RemoveVolume { volume: name.to_owned(), force }
}

fn container(name: &str, volumes: bool, force: bool) -> Step {
    Step::RemoveContainer { container: name.to_owned(), volumes, force }
}

#[test]
fn every_way_to_write_a_volume_that_the_engine_executes_is_that_volume() {
    for (target, api) in [
        ("/volumes/x", None),
        ("/v1.30/volumes/x", Some((1, 30))),
        ("/v1.41.0/volumes/x", Some((1, 41))),
        ("/v1/volumes/x", Some((1, 0))),
        ("/v.9/volumes/x", Some((0, 9))),
        ("/v1.41/volumes/%78", Some((1, 41))),
        ("/v1.41/%76olumes/x", Some((1, 41))),
        ("/v1.41%2fvolumes/x", Some((1, 41))),
        ("/%761.41%2Fvolumes%2Fx", Some((1, 41))),
        ("/v1.41/volumes/x?force=0", Some((1, 41))),
        ("http://evil/v1.41/volumes/x", Some((1, 41))),
        ("http:///v1.41/volumes/x", Some((1, 41))),
        ("http:/v1.41/volumes/x", Some((1, 41))),
        ("a+b.c-1://evil:1/volumes/x", None),
    ] {
        let found = destroys("DELETE", target);
        assert_eq!((found.step, found.api), (volume("x", false), api), "{target}");
    }
    // What follows the route is the name, whatever is in it.
    for (target, name) in [
        ("/volumes/a/b", "a/b"),
        ("/volumes/x/", "x/"),
        ("/volumes/x%00", "x\0"),
        ("/volumes/x%20", "x "),
        ("/volumes/x#y", "x#y"),
        ("/volumes/a+b", "a+b"),
        ("/volumes/prune", "prune"),
        ("/volumes/containers/y", "containers/y"),
        ("/volumes/%2576", "%76"),
    ] {
        assert_eq!(destroys("DELETE", target).step, volume(name, false), "{target}");
    }
}

#[test]
fn flags_are_true_when_the_engine_takes_them_for_true() {
    for (query, volumes, force) in [
        ("", false, false),
        ("?v=1", true, false),
        ("?v=True&force=1", true, true),
        ("?v=banana", true, false),
        ("?v=-1", true, false),
        ("?v=", false, false),
        ("?v", false, false),
        ("?v=%20No%20", false, false),
        ("?v=NONE", false, false),
        ("?v=0&v=1", false, false),
        ("?v=1&v=0", true, false),
        ("?%76=1", true, false),
        ("?V=1", false, false),
        ("?&&v=1", true, false),
        ("?x=?&v=1", true, false),
        ("?v=+false+", false, false),
    ] {
        let found = destroys("DELETE", &format!("/containers/db{query}"));
        assert_eq!(found.step, container("db", volumes, force), "{query}");
    }
    assert_eq!(destroys("DELETE", "/v1.41/containers/db?force=t&v=1").command, "DELETE /containers/db?v=1&force=1");
    assert!(matches!(ask("DELETE", "/containers/db?v=1;force=1"), Classified::Refused(_)));
    assert!(matches!(ask("DELETE", "/containers/db?v=%4"), Classified::Refused(_)));
    assert!(matches!(ask("DELETE", "/volumes/db?force=%ff"), Classified::Refused(_)));
}

#[test]
fn what_resembles_a_removal_is_refused() {
    for (method, target) in [
        ("DELETE", ""),
        ("", "/volumes/x"),
        ("DELETE", "//v1.41/volumes/x"),
        ("DELETE", "//volumes/x"),
        ("DELETE", "/v1.41//volumes/x"),
        ("DELETE", "/volumes//x"),
        ("DELETE", "/x/../volumes/y"),
        ("DELETE", "/x/%2e%2e/volumes/y"),
        ("DELETE", "/images/../volumes/y"),
        ("DELETE", "/volumes/./y"),
        ("DELETE", "/containers/%2Fname"),
        ("DELETE", "/Volumes/x"),
        ("DELETE", "/VOLUMES/x"),
        ("DELETE", "/volume\u{17f}/x"),
        ("DELETE", "/V1.41/volumes/x"),
        ("DELETE", "/v1.41/v1.41/volumes/x"),
        ("DELETE", "/v1.41beta/volumes/x"),
        ("DELETE", "/%2576olumes/x"),
        ("DELETE", "/%25252525252576olumes/x"),
        ("DELETE", "/volumes%5Cx"),
        ("DELETE", "volumes/x"),
        ("DELETE", "http:volumes/x"),
        ("DELETE", "/volumes%20/x"),
        ("DELETE", "/volumes/x%"),
        ("DELETE", "/volumes/%ff"),
        ("delete", "/volumes/x"),
        ("Delete", "/containers/x?v=1"),
        ("post", "/volumes/prune"),
        ("POST", "/volumes/Prune"),
        ("POST", "/volumes/prune/"),
        ("POST", "//volumes/prune"),
        ("POST", "/volumes/x/../prune"),
        ("POST", "/volumes/prune?filters=x"),
        ("POST", "/volumes/prune?filters={\"label\":\"x\"}"),
        ("POST", "/containers/prune?filters={\"label\":[\"a\"],\"label\":[\"b\"]}"),
        ("POST", "/containers/prune?filters={\"label\":{\"a\":1}}"),
        ("POST", "/containers/prune?a;b"),
        ("DELETE", "/plugins/voltool"),
        ("DELETE", "/v1.41/plugins/registry:5000/rs/Voltool:dev"),
        ("POST", "/plugins/voltool/disable?force=1"),
        ("POST", "/plugins/rs/voltool@sha256:00/upgrade"),
        ("POST", "/plugins/voltool:latest/set"),
    ] {
        assert!(matches!(ask(method, target), Classified::Refused(_)), "{method} {target}: {:?}", ask(method, target));
    }
}

#[test]
fn what_removes_nothing_is_harmless() {
    for (method, target) in [
        ("GET", "/v1.41/volumes/x"),
        ("HEAD", "/_ping"),
        ("GET", "*"),
        ("OPTIONS", "/volumes/x"),
        ("PUT", "/volumes/x?version=1"),
        ("PUT", "/containers/x/archive?path=/"),
        ("DELETE", "/volumes"),
        ("DELETE", "/images/volumes/x"),
        ("DELETE", "/v1.45/images/registry:5000/volumes/x?force=1"),
        ("DELETE", "/networks/x"),
        ("DELETE", "/secrets/x"),
        ("DELETE", "/plugins/other"),
        ("POST", "/volumes/create"),
        ("POST", "/images/prune"),
        ("POST", "/networks/prune"),
        ("POST", "/build/prune"),
        ("POST", "/containers/prune/start"),
        ("POST", "/v1.41/containers/x/stop?t=1"),
        ("POST", "/containers/x/exec"),
        ("POST", "/plugins/voltool/enable"),
        ("POST", "/plugins/other/disable"),
        ("POST", "/images/create?fromImage=volumes/prune"),
        ("POST", "/build?t=volumes/prune"),
    ] {
        assert_eq!(ask(method, target), Classified::Harmless, "{method} {target}");
    }
}

#[test]
fn a_prune_is_what_its_filters_say() {
    let mut wanted = Filters::none();
    wanted.add("label", "a=b");
    wanted.add("label", "c");
    for filters in [
        r#"{"label":["a=b","c"]}"#,
        r#"{"label":{"a=b":true,"c":false}}"#,
        "%7B%22label%22%3A%5B%22a%3Db%22,%22c%22%5D%7D",
    ] {
        let found = destroys("POST", &format!("/v1.44/volumes/prune?filters={filters}"));
        assert_eq!(found.step, Step::PruneVolumes { filters: wanted.clone() }, "{filters}");
        assert_eq!(
            found.command,
            r#"POST /volumes/prune?filters={"label":["a=b","c"]}"#.replace(
                r#"["a=b","c"]"#,
                if filters.contains("true") { r#"{"a=b":true,"c":false}"# } else { r#"["a=b","c"]"# }
            )
        );
    }
    assert_eq!(destroys("POST", "/containers/prune").step, Step::PruneContainers { filters: Filters::none() });
    let newest = destroys("POST", "/volumes/prune").into_request((1, 45));
    assert_eq!((newest.api, newest.command.as_str()), ((1, 45), "POST /volumes/prune"));
}

#[test]
fn a_prune_whose_body_may_hide_filters_is_refused() {
    let prune = "/volumes/prune";
    let form = "application/x-www-form-urlencoded";
    for (content_type, length, body, fine) in [
        (None, None, None, true),
        (None, Some("0"), None, true),
        (Some("text/plain"), Some("0"), None, true),
        (Some("application/json"), Some("2"), Some(&b"{}"[..]), true),
        (Some(form), Some("0"), None, true),
        (Some(form), Some("40"), None, false),
        (Some(form), None, None, false),
        (Some("Application/X-WWW-Form-URLEncoded; charset=x"), Some("40"), None, false),
        (Some("multipart/form-data; boundary=x"), Some("40"), None, false),
        // Chunked, or longer than the engine shows; and the header that counts may have been another one.
        (Some("application/json"), None, None, false),
        (Some("application/json"), Some("40"), Some(&b""[..]), false),
        (Some("text/plain"), Some("40"), None, false),
    ] {
        let found = post(prune, content_type, length, body);
        assert_eq!(matches!(found, Classified::Destroys(_)), fine, "{content_type:?} {length:?}: {found:?}");
        assert!(fine || matches!(found, Classified::Refused(_)));
    }
}

#[test]
fn a_container_that_removes_itself_is_noted() {
    let create =
        |body: &str| post("/v1.41/containers/create?name=x", Some("application/json"), None, Some(body.as_bytes()));
    for (body, note) in [
        (r#"{"Image":"x"}"#, None),
        (r#"{"Image":"x","HostConfig":{"AutoRemove":false,"Binds":["/a"]}}"#, None),
        (r#"{"AutoRemove":true}"#, None),
        (r#"{"HostConfig":{"AutoRemove":true}}"#, Some("only its image")),
        (r#"{"HoſtConfig":{"autoremove":true}}"#, Some("only its image")),
        (r#"{"HostConfig":{"AutoRemove":true},"HostConfig":{"NetworkMode":"host"}}"#, Some("only its image")),
        (r#"{"HostConfig":{"AutoRemove":true}} {"trailing":1}"#, Some("only its image")),
        (r#"{"HostConfig":{"AutoRemove":true,"Binds":["data:/a"]}}"#, Some("only its image")),
        (r#"{"HostConfig":{"AutoRemove":true,"Binds":["/a"]}}"#, Some("its anonymous volumes")),
        (r#"{"Volumes":{"/a":{}},"HostConfig":{"AutoRemove":true}}"#, Some("its anonymous volumes")),
        (
            r#"{"HostConfig":{"AutoRemove":true,"Mounts":[{"Type":"volume","Target":"/a"}]}}"#,
            Some("its anonymous volumes"),
        ),
        (
            r#"{"HostConfig":{"AutoRemove":true,"Mounts":[{"Type":"volume","Source":"n","Target":"/a"}]}}"#,
            Some("only its image"),
        ),
        (r#"{"HostConfig":{"Mounts":null,"AutoRemove":true,"Memory":1.5,"Cpu":-1,"X":null}}"#, Some("only its image")),
        ("[", Some("did not pass on")),
        ("", Some("did not pass on")),
    ] {
        match (create(body), note) {
            (Classified::Harmless, None) => {}
            (Classified::Noted(text), Some(note)) => assert!(text.contains(note), "{body}: {text}"),
            (other, _) => panic!("{body}: {other:?}"),
        }
    }
    assert!(matches!(post("/containers/create", None, None, None), Classified::Noted(_)), "a body that was too long");
    for (method, target) in
        [("DELETE", "/services/x"), ("POST", "/services/x/update?version=1"), ("POST", "/swarm/leave?force=1")]
    {
        assert!(matches!(ask(method, target), Classified::Noted(_)), "{target}");
    }
    assert_eq!(ask("POST", "/services/create"), Classified::Harmless);
}

/// Writes a path in one of the ways that mean the same to some reader: letters in either case, any of them encoded.
fn spelled(path: String) -> impl Strategy<Value = String> {
    let length = path.len();
    proptest::collection::vec((any::<bool>(), 0..6u8), length).prop_map(move |choices| {
        let mut out = String::new();
        for (c, (upper, encode)) in path.chars().zip(choices) {
            let c = if upper { c.to_ascii_uppercase() } else { c };
            match encode {
                0 => out.push_str(&format!("%{:02x}", u32::from(c))),
                1 => out.push_str(&format!("%{:02X}", u32::from(c))),
                2 => out.push_str(&format!("%25{:02X}", u32::from(c))),
                _ => out.push(c),
            }
        }
        out
    })
}

/// A destructive target, in every disguise that is known.
fn disguised() -> impl Strategy<Value = (&'static str, String)> {
    let route = prop_oneof![
        Just(("DELETE", "/volumes/db".to_owned())),
        Just(("DELETE", "/containers/db".to_owned())),
        "[a-z0-9._-]{1,12}".prop_map(|name| ("DELETE", format!("/volumes/x{name}"))),
        Just(("POST", "/volumes/prune".to_owned())),
        Just(("POST", "/containers/prune".to_owned())),
    ];
    let version = prop_oneof![Just(String::new()), "/v[0-9.]{1,6}"];
    let origin = prop_oneof![Just(String::new()), "[a-z][a-z0-9+.-]{0,4}://[a-z.:0-9]{0,8}", "[a-z]{1,5}:"];
    let slashes = prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just("/."), 1 => Just("/x/.."), 1 => Just("//")];
    let query = prop_oneof![Just(String::new()), Just("?v=1&force=1".to_owned()), "\\?[a-z%0-9=&;]{0,10}"];
    (route, version, origin, slashes, query).prop_flat_map(|((method, route), version, origin, slashes, query)| {
        spelled(format!("{version}{slashes}{route}")).prop_map(move |path| {
            // Without a slash after the authority, the authority would swallow the path.
            let origin = if path.starts_with('/') { origin.as_str() } else { "" };
            (method, format!("{origin}{path}{query}"))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_disguise_makes_a_removal_harmless((method, target) in disguised()) {
        let found = ask(method, &target);
        prop_assert!(matches!(found, Classified::Destroys(_) | Classified::Refused(_)), "{method} {target}: {found:?}");
    }

    #[test]
    fn nothing_makes_it_panic(
        method in "(DELETE|POST|delete|.{0,4})",
        target in "(/|http:|//|%)?(v1\\.4[0-9]|volumes|containers|%[0-9a-f]{2}|.){0,6}[/?].{0,20}",
        content_type in proptest::option::of(".{0,20}"),
        body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)),
    ) {
        let request = AuthzRequest {
            method: &method,
            target: &target,
            content_type: content_type.as_deref(),
            content_length: None,
            body: body.as_deref(),
        };
        let _ = classify(&request);
    }

    #[test]
    fn what_a_body_says_never_makes_it_panic(body in "[\\[\\]{}\",:a-zA-Z0-9.eE+-]{0,80}") {
        let _ = post("/containers/create", None, None, Some(body.as_bytes()));
    }
}
