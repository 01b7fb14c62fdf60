use proptest::prelude::*;

use super::*;

fn map(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn parse(options: &[(&str, &str)]) -> VolumeOptions {
    VolumeOptions::parse(&map(options)).unwrap_or_else(|e| panic!("{options:?}: {e}"))
}

fn refused(options: &[(&str, &str)]) -> OptionError {
    VolumeOptions::parse(&map(options)).expect_err(&format!("{options:?}"))
}

#[test]
fn nothing_said_is_a_folder_that_is_snapshotted_before_it_is_removed() {
    assert_eq!(parse(&[]), VolumeOptions::default());
    assert_eq!(VolumeOptions::default().describe(), map(&[("on-remove", "snapshot")]));
}

#[test]
fn every_option_is_read() {
    let options = parse(&[
        ("from", "db@01J"),
        ("from-engine", "old-host"),
        ("schedule", "@daily"),
        ("keep", "7d,4w,12m"),
        ("consistency", "pause"),
        ("on-remove", "trash"),
        ("on-empty", "restore"),
        ("size", "10G"),
        ("uid-map", "0:100000:65536"),
        ("handover", "true"),
        ("lease.takeover", "after:10m"),
    ]);
    assert_eq!(options.from, Some(Origin { volume: "db".to_owned(), snapshot: Some("01J".to_owned()) }));
    assert_eq!(options.from_engine.as_deref(), Some("old-host"));
    assert_eq!(options.schedule.as_ref().map(Schedule::to_string).as_deref(), Some("@daily"));
    assert_eq!(options.keep, Some(Keep { daily: 7, weekly: 4, monthly: 12, ..Keep::default() }));
    assert_eq!(options.consistency, Some(Consistency::Pause));
    assert_eq!(options.on_remove, OnRemove::Trash);
    assert!(options.on_empty_restore && options.handover);
    assert_eq!(options.size, Some(10 << 30));
    assert_eq!(options.uid_map.apply(7), 100_007);
    assert_eq!(options.lease_takeover, Some(SignedDuration::from_mins(10)));
    let fresh = parse(&[("uid", "999"), ("gid", "0"), ("mode", "1770")]);
    assert_eq!((fresh.uid, fresh.gid, fresh.mode), (Some(999), Some(0), Some(0o1770)));
    let nas = parse(&[("mount", "smb://nas/x"), ("on-remove", "refuse"), ("schedule", "0 3 * * *")]);
    assert_eq!(nas.describe()["mount"], "cifs://nas/x");
}

#[test]
fn what_is_described_is_short() {
    let described = parse(&[("size", "1048576k"), ("lease.takeover", "after:90m"), ("mode", "750")]).describe();
    assert_eq!(
        described,
        map(&[("lease.takeover", "after:1h 30m"), ("mode", "0750"), ("on-remove", "snapshot"), ("size", "1GiB")])
    );
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_name() {
    assert_eq!(refused(&[("scedule", "@daily")]).to_string(), "unknown option 'scedule': did you mean 'schedule'?");
    assert_eq!(refused(&[("uid_map", "0:1:1")]).to_string(), "unknown option 'uid_map': did you mean 'uid-map'?");
    assert_eq!(refused(&[("Size", "1G")]).to_string(), "unknown option 'Size': did you mean 'size'?");
    let foreign = refused(&[("device", "/dev/sdb")]);
    assert!(foreign.hint().unwrap().contains("mount="), "{foreign}");
    assert!(refused(&[("zzzzzz", "")]).hint().unwrap().contains("schedule"));
}

#[test]
fn a_wrong_value_is_refused_with_option_value_and_what_is_expected() {
    for (name, value) in [
        ("consistency", "frozen"),
        ("from", "a/b"),
        ("from", "db@"),
        ("from", "@latest"),
        ("from", "engine/db@latest"),
        ("from-engine", "a\nb"),
        ("handover", "yes"),
        ("keep", "7"),
        ("lease.takeover", "10m"),
        ("lease.takeover", "after:0s"),
        ("lease.takeover", "after:soon"),
        ("mode", "0o755"),
        ("mode", "789"),
        ("mode", "77777"),
        ("mount", "/srv/nas"),
        ("on-empty", "true"),
        ("on-remove", "delete"),
        ("schedule", "daily"),
        ("size", "10"),
        ("size", "10X"),
        ("size", "16777215T"),
        ("uid", "root"),
        ("uid", "-1"),
        ("uid", "+1"),
        ("gid", "4294967295"),
        ("uid-map", "0:1000:65536"),
        ("uid-map", "0-100000-1"),
    ] {
        let text = refused(&[(name, value)]).to_string();
        assert!(text.starts_with(&format!("option '{name}' cannot be '{value}': ")), "{text}");
        assert!(text.ends_with("is expected"), "{text}");
    }
    assert_eq!(
        refused(&[("size", "10X")]).to_string(),
        "option 'size' cannot be '10X': it is no size; a size of at least 1MiB, such as 10G, is expected"
    );
    for name in NAMES {
        for value in ["", "  "] {
            let text = refused(&[(name, value)]).to_string();
            assert!(text.starts_with(&format!("option '{name}' is empty: ")), "{text}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let mount = ("mount", "nfs://nas/x");
    let from = ("from", "db");
    for (one, other) in [
        (mount, ("size", "1G")),
        (mount, ("uid", "1")),
        (mount, ("gid", "1")),
        (mount, ("mode", "700")),
        (mount, from),
        (mount, ("on-empty", "restore")),
        (mount, ("uid-map", "0:100000:1")),
        (mount, ("handover", "true")),
        (mount, ("lease.takeover", "after:10m")),
        (mount, ("on-remove", "trash")),
        (from, ("uid", "1")),
        (from, ("gid", "1")),
        (from, ("mode", "700")),
    ] {
        let error = refused(&[one, other]);
        assert!(matches!(error, OptionError::Conflict { .. }), "{error}");
        let (text, hint) = (error.to_string(), error.hint().unwrap());
        assert!([one.0, other.0].iter().all(|name| text.contains(name) && hint.contains(name)), "{text}; {hint}");
    }
    assert_eq!(refused(&[("from-engine", "x")]).to_string(), "option 'from-engine' means nothing without 'from'");
    parse(&[mount, ("handover", "false")]);
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let error = refused(&[("mount", "cifs://joe:hunter2@nas/x")]);
    assert!(!format!("{error:?}{error}{:?}", error.hint()).contains("hunter2"));
    assert!(error.hint().unwrap().contains("credentials="));
}

fn value_of(name: &'static str) -> BoxedStrategy<String> {
    match name {
        "consistency" => "live|pause|stop".boxed(),
        "from" => "[a-z0-9][a-zA-Z0-9_.-]{1,8}(@[a-zA-Z0-9: -]{1,8})?".boxed(),
        "from-engine" => "[a-zA-Zé .-]{1,8}".boxed(),
        "handover" => "true|false|1|0".boxed(),
        "keep" => "(last:[1-9],)?[1-9][0-9]{0,3}[hdwmy](,[1-9][hdwmy])?".boxed(),
        "lease.takeover" => "after:[1-9][0-9]{0,3}(m|h|d|\\.5h|h [0-9]s)".boxed(),
        "mode" => "[0-7]{1,4}".boxed(),
        "mount" => "(nfs|smb|sftp|s3fs)://[a-z]{1,5}/[a-zA-Z0-9%é/-]{1,8}(\\?[a-z]{1,4}(=[0-9a-z]{1,3})?)?".boxed(),
        "on-empty" => "restore".boxed(),
        "on-remove" => "refuse|snapshot|trash".boxed(),
        "schedule" => {
            "@(daily|weekly|hourly)|[0-5]?[0-9]  ?(\\*|[0-9]|\\*/[1-9]) [1-9LW*] (\\*|[1-9]|jan) (\\*|[0-7]|mon#2)"
                .boxed()
        }
        "size" => "[1-9][0-9]{0,6}(\\.[0-9])?[MGTKmgk]?(iB|B)?".boxed(),
        "uid-map" => "[0-9]{1,3}:[0-9]{4,10}:[0-9]{1,5}(,[1-9][0-9]{3}:[0-9]{1,10}:1)?".boxed(),
        _ => "[0-9]{1,10}".boxed(),
    }
}

proptest! {
    #[test]
    fn reading_never_panics(options in proptest::collection::btree_map(
        prop_oneof![8 => proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()],
        any::<String>(),
        0..4,
    )) {
        let _ = VolumeOptions::parse(&options);
    }

    #[test]
    fn almost_right_values_never_panic(
        (name, value) in proptest::sample::select(&NAMES[..]).prop_flat_map(|name| (Just(name), value_of(name))),
        at in any::<proptest::sample::Index>(),
        other in any::<char>(),
    ) {
        let mut chars: Vec<char> = value.chars().collect();
        let at = at.index(chars.len());
        chars[at] = other;
        let _ = VolumeOptions::parse(&map(&[(name, &chars.into_iter().collect::<String>())]));
    }

    #[test]
    fn what_is_accepted_is_read_again_from_its_description(
        given in proptest::sample::subsequence(&NAMES[..], 1..4).prop_flat_map(|names| {
            names.into_iter().map(|name| value_of(name).prop_map(move |value| (name.to_owned(), value))).collect::<Vec<_>>()
        }),
    ) {
        if let Ok(options) = VolumeOptions::parse(&given.into_iter().collect()) {
            let described = options.describe();
            prop_assert_eq!(VolumeOptions::parse(&described), Ok(options), "{:?}", described);
        }
    }
}
