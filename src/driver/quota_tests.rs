use super::*;

fn mount(fstype: &str, options: &str) -> MountPoint {
    MountPoint { at: "/data".into(), fstype: fstype.into(), source: "/dev/sdb1".into(), options: options.into() }
}

#[test]
fn only_what_enforces_project_quotas_offers_limits() {
    let of = |fstype, options| mechanism(Path::new("/data/volumes"), &mount(fstype, options)).ok();
    assert_eq!(of("xfs", "rw,attr2,inode64,prjquota"), Some(Mechanism::Xfs));
    assert_eq!(of("xfs", "rw,attr2,inode64,noquota"), None);
    assert_eq!(of("xfs", "rw,usrquota,pqnoenforce"), None);
    assert_eq!(of("ext4", "rw,prjquota"), Some(Mechanism::Ext4));
    assert_eq!(of("ext4", "rw,usrquota,grpquota"), None);
    assert_eq!(of("btrfs", "rw"), Some(Mechanism::Btrfs));
    assert_eq!(of("ext3", "rw,prjquota"), None);
    assert_eq!(of("tmpfs", "rw"), None);
    let refusal = mechanism(Path::new("/data/volumes"), &mount("ext4", "rw")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "cannot limit the size of /data/volumes: it is on ext4 (mounted at /data), which is not mounted with prjquota"
    );
    assert!(refusal.hint().unwrap().contains("tune2fs -O project,quota -Q prjquota /dev/sdb1"));
}

#[test]
fn what_the_tools_print_is_read() {
    let usage = |used, limit| Some(Usage { used, limit });
    assert_eq!(qgroup_row("0/256         10469376     10469376     10485760   v"), usage(10_469_376, Some(10_485_760)));
    assert_eq!(qgroup_row("0/257            16384        16384         none "), usage(16_384, None));
    for line in
        ["Qgroupid    Referenced    Exclusive  Max referenced   Path ", "--------    ----------", "1/100 1 1 none", ""]
    {
        assert_eq!(qgroup_row(line), None, "{line}");
    }

    let row = |line| project_row(line).map(|(id, usage)| (id, usage.used, usage.limit));
    assert_eq!(
        row("#1073741824        512          0     102400     00 [--------]"),
        Some((1 << 30, 512 << 10, Some(100 << 20)))
    );
    assert_eq!(row("#0                   0          0          0     00 [--------]"), Some((0, 0, None)));
    assert_eq!(
        row("#42       --     512       0  102400              2     0     0       "),
        Some((42, 512 << 10, Some(100 << 20)))
    );
    assert_eq!(
        row("#42       +-  102400       1  102400  6days       2     0     0       "),
        Some((42, 100 << 20, Some(100 << 20)))
    );
    for line in [
        "*** Report for project quotas on device /dev/loop0",
        "Project         used    soft    hard  grace",
        "",
        "#x 1 2 3",
        "#1 1 2",
    ] {
        assert_eq!(row(line), None, "{line}");
    }

    assert_eq!(project_id("projid = 42\n"), Some(42));
    assert_eq!(project_id("1073741825 --------------e----P- /data/a b"), Some((1 << 30) + 1));
    assert_eq!(project_id("    0 --------------e------- /data"), Some(0));
    assert_eq!(project_id("lsattr: Operation not supported"), None);
    let named: Vec<u32> = named_projects("# 7:x\nlogs:10\n\n11:/srv/a:b\nodd\n").collect();
    assert_eq!(named, [10, 11]);
}

#[test]
fn project_ids_are_those_of_paths_and_do_not_collide() {
    let path = Path::new("/var/lib/voltool/volumes/db/_data");
    let first = free_project(path, &BTreeSet::new());
    assert!(PROJECTS.contains(&first));
    assert_eq!(free_project(path, &BTreeSet::from([1, first + 1])), first);
    let second = free_project(path, &BTreeSet::from([first]));
    assert!(PROJECTS.contains(&second) && second != first);
    assert_ne!(free_project(Path::new("/var/lib/voltool/volumes/web/_data"), &BTreeSet::new()), first);
}
