//! The choice of an engine, case by case, in a folder that plays the root of the file system.

use super::*;

/// A root folder in which files can be put, and an environment.
struct World {
    root: tempfile::TempDir,
    around: Surroundings,
}

impl World {
    /// A user with a home folder, no settings, no sockets.
    fn new(superuser: bool) -> World {
        let root = tempfile::tempdir().expect("a folder");
        let env = BTreeMap::from([("HOME".to_owned(), "/home/u".to_owned())]);
        let around = Surroundings { env, root: root.path().to_owned(), superuser };
        World { root, around }
    }

    fn env(mut self, name: &str, value: &str) -> World {
        self.around.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(self, path: &str, content: &str) -> World {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("written");
        self
    }

    fn context(self, name: &str, meta: &str) -> World {
        let path = format!("/home/u/.docker/contexts/meta/{}/meta.json", id_of(name));
        self.file(&path, meta)
    }

    fn certificates(self, dir: &str) -> World {
        self.file(&format!("{dir}/ca.pem"), "").file(&format!("{dir}/cert.pem"), "").file(&format!("{dir}/key.pem"), "")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn resolve(&self) -> Result<Endpoint, EngineError> {
        resolve(None, &self.around)
    }

    fn host(&self) -> (String, Source) {
        let endpoint = self.resolve().expect("resolved");
        (endpoint.host, endpoint.source)
    }

    /// The error's kind and everything that a person would see of it.
    fn error(&self) -> (EngineErrorKind, String) {
        let error = self.resolve().expect_err("an error");
        (error.kind, format!("{error}\nhint: {}", error.hint().expect("a hint")))
    }
}

fn id_of(name: &str) -> String {
    // Computed with `printf %s remote | sha256sum`, so that the test does not repeat the code.
    match name {
        "remote" => "b71199ebd070b36beab7317920c2c2f1d777df8d05e5527d8458fda57cb17a7a",
        other => panic!("no id for {other}"),
    }
    .to_owned()
}

const CONFIG: &str = "/home/u/.docker/config.json";
const REMOTE: &str =
    r#"{"Name":"remote","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#;

fn context_source() -> Source {
    Source::Context("remote".to_owned())
}

#[test]
fn nothing_set_is_the_default_socket() {
    let default = ("unix:///var/run/docker.sock".to_owned(), Source::Default);
    assert_eq!(World::new(true).host(), default);
    assert_eq!(World::new(false).host(), default, "the message about a missing socket names the usual one");
    assert_eq!(World::new(true).env("DOCKER_HOST", "").env("DOCKER_CONTEXT", "").host(), default, "empty is not set");
}

#[test]
fn the_rootless_socket_is_for_users_without_the_default_socket() {
    let world = |superuser| {
        World::new(superuser).env("XDG_RUNTIME_DIR", "/run/user/1000").file("/run/user/1000/docker.sock", "")
    };
    assert_eq!(world(false).host(), ("unix:///run/user/1000/docker.sock".to_owned(), Source::Rootless));
    assert_eq!(world(true).host().1, Source::Default);
    assert_eq!(world(false).file("/var/run/docker.sock", "").host().1, Source::Default);
    let without = World::new(false).env("XDG_RUNTIME_DIR", "/run/user/1000");
    assert_eq!(without.host().1, Source::Default);
}

#[test]
fn the_first_that_is_set_wins() {
    let mut world =
        World::new(true).context("remote", REMOTE).file(CONFIG, r#"{"auths":{},"currentContext":"remote"}"#);
    assert_eq!(world.host(), ("tcp://far:2376".to_owned(), context_source()));
    world = world.env("DOCKER_CONTEXT", "default");
    assert_eq!(world.host().1, Source::Default);
    world = world.env("DOCKER_CONTEXT", "remote").file(CONFIG, "{}");
    assert_eq!(world.host().1, context_source());
    world = world.env("DOCKER_HOST", "unix:///a.sock");
    assert_eq!(world.host(), ("unix:///a.sock".to_owned(), Source::DockerHost));
    let endpoint = resolve(Some("unix:///b.sock"), &world.around).expect("resolved");
    assert_eq!((endpoint.host.as_str(), &endpoint.source), ("unix:///b.sock", &Source::Explicit));
    assert_eq!(endpoint.socket(), Some(Path::new("/b.sock")));
    assert_eq!(endpoint.to_string(), "unix:///b.sock (given explicitly)");
}

#[test]
fn the_configuration_folder_can_be_moved() {
    let world = World::new(true)
        .file(CONFIG, "not read")
        .env("DOCKER_CONFIG", "/elsewhere")
        .file("/elsewhere/config.json", r#"{"currentContext":"remote"}"#)
        .file(&format!("/elsewhere/contexts/meta/{}/meta.json", id_of("remote")), REMOTE);
    assert_eq!(world.host().1, context_source());
}

#[test]
fn addresses_take_their_usual_forms() {
    let ok = |text: &str| normalise_host(text, false).expect("an address");
    assert_eq!(ok("tcp://10.0.0.1"), "tcp://10.0.0.1:2375");
    assert_eq!(ok("10.0.0.1:99"), "tcp://10.0.0.1:99");
    assert_eq!(ok(":99"), "tcp://localhost:99");
    assert_eq!(ok("tcp://"), "tcp://localhost:2375");
    assert_eq!(normalise_host("tcp://h", true).expect("an address"), "tcp://h:2376");
    assert_eq!(ok("tcp://[::1]"), "tcp://[::1]:2375");
    assert_eq!(ok("tcp://[::1]:99/base/"), "tcp://[::1]:99/base");
    assert_eq!(ok("http://h:99/a/b"), "tcp://h:99/a/b");
    assert_eq!(ok(" unix:///a b.sock "), "unix:///a b.sock");
    assert_eq!(ok("unix://"), "unix:///var/run/docker.sock");
    for wrong in
        ["/var/run/docker.sock", "ftp://h", "tcp://h:x", "tcp://h:0", "tcp://h:70000", "tcp://u@h", "tcp://h h"]
    {
        let error = normalise_host(wrong, false).expect_err(wrong);
        assert_eq!(error.kind, EngineErrorKind::Settings);
        assert!(error.to_string().contains(wrong), "{error}");
    }
    for unsupported in ["ssh://h", "npipe:////./pipe/docker_engine", "fd://"] {
        let error = normalise_host(unsupported, false).expect_err(unsupported);
        assert_eq!(error.kind, EngineErrorKind::Unsupported);
        assert!(error.to_string().contains(unsupported) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn ssh_is_refused_as_ssh_whatever_the_tls_variables_say() {
    let world = World::new(true).env("DOCKER_HOST", "ssh://h").env("DOCKER_TLS_VERIFY", "1");
    let (kind, text) = world.error();
    assert_eq!(kind, EngineErrorKind::Unsupported);
    assert!(text.contains("ssh") && text.contains("forward the engine's socket"), "{text}");
}

#[test]
fn tls_comes_from_the_environment() {
    let world = || World::new(true).env("DOCKER_HOST", "tcp://h");
    assert_eq!(world().resolve().expect("resolved").tls, None);

    let tls = world().env("DOCKER_TLS_VERIFY", "1").certificates("/home/u/.docker");
    let endpoint = tls.resolve().expect("resolved");
    assert_eq!(endpoint.host, "tcp://h:2376");
    assert_eq!(endpoint.tls.expect("TLS").key, tls.path("/home/u/.docker/key.pem"));

    let moved = world().env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", "/certs").certificates("/certs");
    assert_eq!(moved.resolve().expect("resolved").tls.expect("TLS").ca, moved.path("/certs/ca.pem"));

    let socket = World::new(true).env("DOCKER_HOST", "unix:///a.sock").env("DOCKER_TLS_VERIFY", "1");
    assert_eq!(socket.resolve().expect("resolved").tls, None, "a socket needs none");

    let (kind, text) = world().env("DOCKER_TLS_VERIFY", "1").error();
    assert_eq!(kind, EngineErrorKind::Settings);
    assert!(text.contains("ca.pem") && text.contains("DOCKER_CERT_PATH"), "{text}");
    let (_, text) = world()
        .env("DOCKER_TLS_VERIFY", "1")
        .file("/home/u/.docker/ca.pem", "")
        .file("/home/u/.docker/key.pem", "")
        .error();
    assert!(text.contains("cert.pem"), "{text}");
    let (kind, text) = world().env("DOCKER_TLS", "1").certificates("/home/u/.docker").error();
    assert_eq!(kind, EngineErrorKind::Unsupported);
    assert!(text.contains("DOCKER_TLS_VERIFY=1"), "{text}");
}

#[test]
fn a_context_brings_its_own_tls() {
    let dir = format!("/home/u/.docker/contexts/tls/{}/docker", id_of("remote"));
    let plain =
        World::new(true).env("DOCKER_CONTEXT", "remote").context("remote", REMOTE).env("DOCKER_TLS_VERIFY", "1");
    assert_eq!(plain.resolve().expect("resolved").tls, None, "the environment has no say in a context");
    let world = plain.certificates(&dir);
    let tls = world.resolve().expect("resolved").tls.expect("TLS");
    assert_eq!(tls.cert, world.path(&dir).join("cert.pem"));

    let skips = REMOTE.replace("false", "true");
    let (kind, text) = world.context("remote", &skips).error();
    assert_eq!(kind, EngineErrorKind::Unsupported);
    assert!(text.contains("\"remote\""), "{text}");
}

#[test]
fn what_names_no_engine_is_an_error_and_never_another_engine() {
    let (kind, text) = World::new(true).env("DOCKER_CONTEXT", "remote").error();
    assert_eq!(kind, EngineErrorKind::Settings);
    assert!(
        text.contains("the Docker context \"remote\" does not exist") && text.contains("docker context ls"),
        "{text}"
    );

    let named = World::new(true).file(CONFIG, r#"{"currentContext":"remote"}"#);
    assert!(named.error().1.contains("does not exist"));

    let (_, text) = World::new(true).file(CONFIG, "{").error();
    assert!(text.contains("config.json cannot be used"), "{text}");
    let (_, text) = World::new(true).env("DOCKER_CONTEXT", "remote").context("remote", r#"{"Endpoints":{}}"#).error();
    assert!(text.contains("names no Docker engine"), "{text}");
    let (_, text) = World::new(true).env("DOCKER_CONTEXT", "remote").context("remote", "[").error();
    assert!(text.contains("cannot be read from"), "{text}");
}

#[test]
fn the_api_version_can_be_pinned() {
    let world = |text: &str| World::new(true).env("DOCKER_API_VERSION", text);
    assert_eq!(world("1.41").resolve().expect("resolved").api_version, Some((1, 41)));
    assert_eq!(world("").resolve().expect("resolved").api_version, None);
    for wrong in ["1", "one", "1.x", "1.41.0", "-1.2"] {
        assert!(world(wrong).error().1.contains(wrong));
    }
}
