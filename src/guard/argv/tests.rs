//! The table of command lines, and what holds for all of them.

use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn docker(line: &str) -> Meaning {
    parse(Program::Docker, &words(line), Around::default()).meaning
}

fn compose(line: &str) -> Meaning {
    parse(Program::Compose, &words(line), Around::default()).meaning
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn filters(arguments: &[&str]) -> Filters {
    let mut filters = Filters::none();
    arguments.iter().for_each(|argument| filters.add_argument(argument).expect("key=value"));
    filters
}

/// `docker rm` of these containers, with the letters of the flags that are on.
fn rm(flags: &str, containers: &[&str]) -> Meaning {
    let (volumes, force) = (flags.contains('v'), flags.contains('f'));
    Meaning::Guarded(Intent::RemoveContainers { containers: strings(containers), volumes, force })
}

fn volume_rm(flags: &str, volumes: &[&str]) -> Meaning {
    Meaning::Guarded(Intent::RemoveVolumes { volumes: strings(volumes), force: flags.contains('f') })
}

#[test]
fn containers_in_every_spelling() {
    for (line, flags, containers) in [
        ("rm c", "", &["c"][..]),
        ("rm -v c", "v", &["c"]),
        ("rm -fv c", "fv", &["c"]),
        ("rm -vf c", "fv", &["c"]),
        ("rm -f -v a b", "fv", &["a", "b"]),
        ("rm a -v b -f", "fv", &["a", "b"]),
        ("rm a b -vf", "fv", &["a", "b"]),
        ("rm --volumes c", "v", &["c"]),
        ("rm --volumes=true c", "v", &["c"]),
        ("rm --volumes=1 --force c", "fv", &["c"]),
        ("rm --force --volumes=t c", "fv", &["c"]),
        ("rm -v=True c", "v", &["c"]),
        ("rm -fv=true c", "fv", &["c"]),
        ("rm --volumes=false c", "", &["c"]),
        ("rm -v --volumes=0 c", "", &["c"]),
        ("rm -v=F -v c", "v", &["c"]),
        ("rm --force=false -v c", "v", &["c"]),
        ("container rm -v c", "v", &["c"]),
        ("container  remove -fv c", "fv", &["c"]),
        ("container --help=false rm -v c", "v", &["c"]),
        ("-D container rm -v c", "v", &["c"]),
        // Behind `--` everything is a name, also what looks like a flag.
        ("rm -- -v x", "", &["-v", "x"]),
        ("rm -v -- x", "v", &["x"]),
        ("-- rm -v x", "v", &["x"]),
        // Docker's command takes slashes off.
        ("rm -v /c", "v", &["c"]),
        // In front of the verb -v is something else, and does not end anything.
        ("-v rm -v c", "v", &["c"]),
        ("--help rm -v c", "v", &["c"]),
    ] {
        assert_eq!(docker(line), rm(flags, containers), "{line}");
    }
}

#[test]
fn options_in_front_of_the_verb() {
    let none = Connection::default();
    let host = || Some("unix:///x".to_owned());
    let context = || Some("far".to_owned());
    for (line, expected) in [
        ("-H unix:///x rm -v c", Connection { host: host(), length: 2, ..none.clone() }),
        ("-Hunix:///x rm -v c", Connection { host: host(), length: 1, ..none.clone() }),
        ("-H=unix:///x rm -v c", Connection { host: host(), length: 1, ..none.clone() }),
        ("-DH unix:///x rm -v c", Connection { host: host(), length: 2, ..none.clone() }),
        ("--host unix:///x rm -v c", Connection { host: host(), length: 2, ..none.clone() }),
        ("--host=unix:///x rm -v c", Connection { host: host(), length: 1, ..none.clone() }),
        ("-c far rm -v c", Connection { context: context(), length: 2, ..none.clone() }),
        ("-cfar -D rm -v c", Connection { context: context(), length: 2, ..none.clone() }),
        ("--context far rm -v c", Connection { context: context(), length: 2, ..none.clone() }),
        ("--config rm rm -v c", Connection { config: Some("rm".to_owned()), length: 2, ..none.clone() }),
        ("-l debug --log-level=warn rm -v c", Connection { length: 3, ..none.clone() }),
        ("--tls --tlsverify rm -v c", Connection { tls: true, tls_verify: true, length: 2, ..none.clone() }),
        ("--tlsverify=false rm -v c", Connection { length: 1, ..none.clone() }),
        ("--tlscacert x rm -v c", Connection { tls_files: true, length: 2, ..none.clone() }),
    ] {
        let found = parse(Program::Docker, &words(line), Around::default());
        assert_eq!((found.connection, found.meaning), (expected, rm("v", &["c"])), "{line}");
    }
    // Compose's own -f and -p are not Docker's.
    let found = parse(Program::Compose, &words("-H unix:///x -p p down"), Around::default());
    assert_eq!(found.connection.host, host());
}

#[test]
fn volumes_and_prunes_in_every_spelling() {
    let prune = |arguments| Meaning::Guarded(Intent::PruneVolumes { filters: filters(arguments) });
    let system = |arguments, volumes| Meaning::Guarded(Intent::PruneSystem { filters: filters(arguments), volumes });
    let containers = |arguments| Meaning::Guarded(Intent::PruneContainers { filters: filters(arguments) });
    for (line, expected) in [
        ("volume rm a", volume_rm("", &["a"])),
        ("volume remove a b", volume_rm("", &["a", "b"])),
        ("volume rm -f a", volume_rm("f", &["a"])),
        ("volume rm a --force", volume_rm("f", &["a"])),
        ("volume rm --force=true a", volume_rm("f", &["a"])),
        ("volume rm -- -f", volume_rm("", &["-f"])),
        ("volume prune", prune(&[])),
        ("volume prune -f", prune(&[])),
        ("volume prune -a", prune(&["all=true"])),
        ("volume prune -af", prune(&["all=true"])),
        ("volume prune --all=false", prune(&[])),
        ("volume prune --filter label=x --filter=label!=y", prune(&["label=x", "label!=y"])),
        ("volume prune --filter all=1 --filter=", prune(&["all=1"])),
        ("system prune", system(&[], false)),
        ("system prune -af --volumes", system(&[], true)),
        ("system prune --volumes=1 --filter until=24h", system(&["until=24h"], true)),
        ("system prune -a", system(&[], false)),
        ("container prune -f", containers(&[])),
        ("container prune --filter label=a=b", containers(&["label=a=b"])),
    ] {
        assert_eq!(docker(line), expected, "{line}");
    }
}

#[test]
fn a_swarms_own() {
    let tasks = |tasks| Meaning::Guarded(Intent::RemoveTasks(tasks));
    for (line, expected) in [
        ("stack rm a b", tasks(Tasks::OfStacks(strings(&["a", "b"])))),
        ("stack remove a", tasks(Tasks::OfStacks(strings(&["a"])))),
        ("stack down a -d=false", tasks(Tasks::OfStacks(strings(&["a"])))),
        ("stack --orchestrator swarm rm a", tasks(Tasks::OfStacks(strings(&["a"])))),
        ("service rm web", tasks(Tasks::OfServices(strings(&["web"])))),
        ("service scale web=0 -d db=2", tasks(Tasks::Beyond(vec![("web".to_owned(), 0), ("db".to_owned(), 2)]))),
        ("swarm leave -f", tasks(Tasks::OfNode)),
        ("swarm leave", tasks(Tasks::OfNode)),
    ] {
        assert_eq!(docker(line), expected, "{line}");
    }
}

#[test]
fn what_removes_nothing_passes() {
    for line in [
        "",
        "ps",
        "ps -a --filter volume=x",
        "rm",
        "rm -fv",
        "rm --help -v c",
        "rm -v c -h",
        "rm --link a/b",
        "rm -lv a/b",
        "volume rm",
        "volume rm --",
        "volume ls",
        "volume create rm",
        "volume",
        "volume prune x",
        "volume prune --help",
        "system df",
        "image rm -f x",
        "rmi -f x",
        "image prune -a",
        "network rm x",
        "exec c rm -v x",
        "run image rm -v x",
        "run --rm image sh -c rm",
        "run -v name:/x -v /host:/y --mount type=volume,source=a,target=/z --mount type=bind,src=/a,dst=/b image",
        "run --no-such-flag -v /x image",
        "run --help -v /x",
        "-H x ps",
        "--no-such-flag ps",
        "some-plugin rm -v c",
        "RM -v c",
        "stack rm",
        "stack deploy -c x y",
        "service update web",
        "service scale web",
        "plugin rm x",
        "plugin disable -f x",
        "swarm init",
        "swarm leave --help",
        "compose",
        "compose ps",
        "compose up",
        "compose up -d --build web",
        "compose up --no-such-flag",
        "compose volumes",
        "compose down --dry-run -v",
        "compose --dry-run down -v",
        "compose exec db rm -v x",
        "compose run --rm db rm -v",
        "compose run db -- --remove-orphans",
        "compose kill",
        "compose --version",
    ] {
        assert_eq!(docker(line), Meaning::PassThrough, "{line}");
    }
    for line in ["", "ps", "--version", "config", "up", "-f x.yml up", "stop", "run db down -v"] {
        assert_eq!(compose(line), Meaning::PassThrough, "{line}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (line, reason) in [
        ("rm -fvq c", "-q in -fvq"),
        ("rm -v --no-such c", "--no-such"),
        ("rm --vol c", "--vol"),
        ("rm -V c", "-V"),
        ("rm --volumes=yes c", "--volumes=yes is neither true nor false"),
        ("container rm ---v c", "---v"),
        ("volume rm -x a", "-x"),
        ("volume prune --filter", "--filter has no value"),
        ("volume prune --filter label", "not key=value"),
        ("volume prune -fx", "-x in -fx"),
        ("system prune --everything", "--everything"),
        ("--no-such-flag rm -v c", "--no-such-flag"),
        ("-H", "PASS"),
        ("-x volume prune", "-x"),
        ("container --no-such rm -v c", "--no-such"),
        ("-H a -H b rm c", "more than one engine"),
        ("-H a -c b volume rm c", "more than one engine"),
        ("plugin rm -f p", "nobody can look into that"),
        ("plugin rm p --force", "nobody can look into that"),
        // Docker's command tidies paths: this would be `db`.
        ("volume rm x/../db", "not a volume's name"),
        ("volume rm ../containers/db", "not a volume's name"),
        ("volume rm db/", "not a volume's name"),
        ("volume rm ./db", "not a volume's name"),
        ("rm -v x/../db", "not a container's name"),
        ("rm -v /", "not a container's name"),
        ("compose down --volum", "--volum"),
        ("compose --no-such down -v", "--no-such"),
        ("compose down -x", "-x"),
        ("compose rm -sfvx", "-x in -sfvx"),
        ("compose up --no-such -V", "--no-such"),
        ("compose up --renew", "--renew"),
        ("compose up -dq --remove-orph", "-q in -dq"),
        ("compose -f - down -v", "standard input"),
        ("compose -H x down -v", "-H"),
    ] {
        match docker(line) {
            Meaning::Refused(refusal) => assert!(refusal.reason.contains(reason), "{line}: {}", refusal.reason),
            Meaning::PassThrough if reason == "PASS" => {}
            other => panic!("{line}: {other:?}"),
        }
    }
    // The space is Docker's to take off, or not, by version.
    let line = strings(&["volume", "rm", " db"]);
    assert!(matches!(parse(Program::Docker, &line, Around::default()).meaning, Meaning::Refused(_)));
    let line = strings(&["volume", "rm", ""]);
    assert!(matches!(parse(Program::Docker, &line, Around::default()).meaning, Meaning::Refused(_)));
}

#[test]
fn compose_in_every_spelling() {
    let of = |selection: Selection, action| Meaning::Guarded(Intent::Compose(selection, action));
    let at = |verb_at| Selection { verb_at, ..Selection::default() };
    let named = |verb_at| Selection { name: Some("p".to_owned()), ..at(verb_at) };
    let down = |volumes| ComposeAction::Down { volumes };
    let remove = |flags: &str, services: &[&str]| ComposeAction::Remove {
        services: strings(services),
        volumes: flags.contains('v'),
        stop: flags.contains('s'),
    };
    let replace = ComposeAction::Replace;
    let web = |number| vec![("web".to_owned(), number)];
    for (line, expected) in [
        ("down", of(at(0), down(false))),
        ("down -v", of(at(0), down(true))),
        ("down --volumes", of(at(0), down(true))),
        ("down --volume", of(at(0), down(true))),
        ("down --volumes=1 --rmi all --remove-orphans -t 5", of(at(0), down(true))),
        ("down -vt5 web", of(at(0), down(true))),
        ("down -t -v", of(at(0), down(false))),
        ("down --dry-run=false -v", of(at(0), down(true))),
        ("--dry-run down --dry-run=false -v", of(at(1), down(true))),
        ("-p p down -v", of(named(2), down(true))),
        ("-pp down -v", of(named(1), down(true))),
        ("--project-name=p --profile down down -v", of(named(3), down(true))),
        (
            "-f a.yml --file b.yml --project-directory /srv --env-file e --ansi never --parallel 3 down",
            of(
                Selection { files: strings(&["a.yml", "b.yml"]), directory: Some("/srv".to_owned()), ..at(12) },
                down(false),
            ),
        ),
        ("--compatibility --all-resources -- down -v", of(at(3), down(true))),
        ("--no-ansi --verbose --progress plain down", of(at(4), down(false))),
        ("rm", of(at(0), remove("", &[]))),
        ("rm -sfv web", of(at(0), remove("vs", &["web"]))),
        ("rm web -v --stop --force -a", of(at(0), remove("vs", &["web"]))),
        ("up -V", of(at(0), replace(Replace { renew: true, ..Replace::default() }))),
        ("up -dV web", of(at(0), replace(Replace { renew: true, ..Replace::default() }))),
        ("up web --renew-anon-volumes", of(at(0), replace(Replace { renew: true, ..Replace::default() }))),
        ("up -d -y", of(at(0), replace(Replace { recreate_changed: true, ..Replace::default() }))),
        ("create --yes", of(at(0), replace(Replace { recreate_changed: true, ..Replace::default() }))),
        ("up --remove-orphans", of(at(0), replace(Replace { remove_orphans: true, ..Replace::default() }))),
        ("kill --remove-orphans", of(at(0), replace(Replace { remove_orphans: true, ..Replace::default() }))),
        ("run --remove-orphans web sh", of(at(0), replace(Replace { remove_orphans: true, ..Replace::default() }))),
        ("up --scale web=1", of(at(0), replace(Replace { scale: web(1), ..Replace::default() }))),
        ("scale web=0", of(at(0), replace(Replace { scale: web(0), ..Replace::default() }))),
    ] {
        assert_eq!(compose(line), expected, "{line}");
        // The same behind `docker compose`, with Docker's options in front.
        let expected = match expected {
            Meaning::Guarded(Intent::Compose(selection, action)) => {
                of(Selection { verb_at: selection.verb_at + 3, ..selection }, action)
            }
            other => other,
        };
        assert_eq!(docker(&format!("-c far compose {line}")), expected, "{line}");
    }
    let around = Around { remove_orphans: true };
    let orphans = |line: &str| parse(Program::Compose, &words(line), around).meaning;
    assert_ne!(orphans("up"), Meaning::PassThrough);
    assert_eq!(orphans("up --remove-orphans=false"), Meaning::PassThrough);
    assert_eq!(orphans("ps"), Meaning::PassThrough);
}

#[test]
fn volumes_without_a_name_get_a_note() {
    for (line, text) in [
        ("run --rm -v /data image", "the volume at /data goes with the container"),
        ("run --rm -v /a --volume=/b image", "the volumes at /a and /b go with"),
        ("create --rm --mount type=volume,target=/data image", "docker create: the volume at /data goes"),
        ("container run -dit --mount dst=/data image", "the volume at /data will have no name"),
        ("run -v/data image", "/data will have no name"),
        ("run --rm=false -v /data image", "will have no name"),
        ("run -h name -v /data image -v /own", "the volume at /data will"),
    ] {
        let Meaning::Note(note) = docker(line) else { panic!("{line}: {:?}", docker(line)) };
        assert!(note.contains(text), "{line}: {note}");
    }
}

/// Words that command lines are made of, and some that they are not.
fn any_word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "rm",
        "remove",
        "volume",
        "container",
        "system",
        "prune",
        "compose",
        "down",
        "up",
        "run",
        "-v",
        "-f",
        "-fv",
        "-vf",
        "--volumes",
        "--volumes=1",
        "--",
        "-",
        "-H",
        "-c",
        "x",
        "--filter",
        "label=x",
        "-p",
        "--rm",
        "=",
        "--=",
        "-=",
        "--force=",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>(), 1 => "-{1,3}[a-zA-Zé=]{0,4}"]
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(line in prop::collection::vec(any_word(), 0..8), orphans: bool) {
        for program in [Program::Docker, Program::Compose] {
            let found = parse(program, &line, Around { remove_orphans: orphans });
            prop_assert!(found.connection.length <= line.len());
        }
    }

    /// However flags and names are mixed, the same is meant.
    #[test]
    fn the_order_of_flags_does_not_matter(
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
        volumes in prop::sample::select(vec!["-v", "--volumes", "--volumes=true", "-v=1", "-vf"]),
        force in prop::sample::select(vec!["-f", "--force", "--force=t"]),
        verb in prop::sample::select(vec!["rm", "container rm", "container remove"]),
    ) {
        // The flags move; the names stay in order.
        let flags = [volumes, force];
        let mut names = ["a", "b", "c", "d"].into_iter();
        let mut line = words(verb);
        for at in order {
            line.push(flags.get(at).copied().or_else(|| names.next()).expect("six").to_owned());
        }
        let found = parse(Program::Docker, &line, Around::default()).meaning;
        prop_assert_eq!(found, rm("fv", &["a", "b", "c", "d"]));
    }

    /// No spelling of a name gets past: what is not the name of one thing is refused.
    #[test]
    fn a_guarded_name_is_one_part_of_a_path_each(name in "[a-z./ ]{1,8}") {
        let line = vec!["volume".to_owned(), "rm".to_owned(), name.clone()];
        if let Meaning::Guarded(Intent::RemoveVolumes { volumes, .. }) = parse(Program::Docker, &line, Around::default()).meaning {
            prop_assert_eq!(&volumes, std::slice::from_ref(&name));
            prop_assert!(!name.split('/').any(|part| part.is_empty() || part == "." || part == ".."));
        }
    }
}
