//! The points at which a crash leaves something half done, and what it means there.

/// A point between two writes. A daemon that is killed there finds, at its next start, what is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Create: a folder `.new-…`. Nobody knows of it; it is removed.
    CreateBegun,
    /// Create: the folder is complete, and has no name yet. Removed as well; the engine was not answered, and asks again.
    CreateWritten,
    /// Create: the volume is there; the engine was not answered. It asks again, and is told that it is there.
    CreateNamed,
    /// Restore: part of the content is in `_filling`. It is removed, and the restore begins again: at once with `from=`, else at the
    /// next mount.
    FillBegun,
    /// Restore: all of it is in `_filling`. As before: it was not proved to be on the disk.
    FillWritten,
    /// Restore: `_data` is there, and the file still says that content is wanted. It is complete: the file is put right.
    FillNamed,
    /// Remove: the content was judged, and a snapshot taken if that was asked for. The volume is as it was.
    RemoveJudged,
    /// Remove: the note for `voltool undo` is written, and says that it is not done. The volume is as it was, the note is forgotten.
    RemoveNoted,
    /// Remove: the file says that the volume is removed, and it still has its name. The engine was not answered, so it still has the
    /// volume: it is there again.
    RemoveMarked,
    /// Remove: it is in the trash; the engine was not answered, and finds that the volume is gone. The note is put right, and what may be
    /// deleted is deleted.
    RemoveMoved,
    /// Remove: the note says that it is done. What may be deleted is deleted.
    RemoveDone,
    /// Trash: the content is `_gone`, and part of it is deleted. The rest follows; nobody brings it back.
    TrashBegun,
}

impl Step {
    /// Every step, in the order in which they are reached.
    pub const ALL: [Step; 12] = [
        Step::CreateBegun,
        Step::CreateWritten,
        Step::CreateNamed,
        Step::FillBegun,
        Step::FillWritten,
        Step::FillNamed,
        Step::RemoveJudged,
        Step::RemoveNoted,
        Step::RemoveMarked,
        Step::RemoveMoved,
        Step::RemoveDone,
        Step::TrashBegun,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::CreateBegun => "create-begun",
            Step::CreateWritten => "create-written",
            Step::CreateNamed => "create-named",
            Step::FillBegun => "fill-begun",
            Step::FillWritten => "fill-written",
            Step::FillNamed => "fill-named",
            Step::RemoveJudged => "remove-judged",
            Step::RemoveNoted => "remove-noted",
            Step::RemoveMarked => "remove-marked",
            Step::RemoveMoved => "remove-moved",
            Step::RemoveDone => "remove-done",
            Step::TrashBegun => "trash-begun",
        }
    }
}
