//! What would a command destroy, and does that exist anywhere else?
//!
//! One plan, computed once, used by every tier: voltool's own verbs, the wrapper around the docker command, and the
//! authorization plugin.
//!
//! ```text
//!  own verbs ──┐
//!  argv        ├──▶ Request ──▶ effects ──▶ judge ──▶ Plan: allow or refuse, volume by volume
//!  authz ──────┘    (steps)     (pure)      (scan)
//! ```
//!
//! | file | what is in it |
//! | --- | --- |
//! | [`request`] | what somebody wants to remove, in the engine's terms |
//! | [`argv`] | what a docker command line would remove |
//! | [`effects`] | what the engine would do then: pure, by the engine's own rules |
//! | [`filter`] | the filters of Docker's prune commands |
//! | [`verdict`] | what can be said of one volume, and of the whole |
//! | [`content`] | what can be said of one volume's content |
//! | [`judge`] | from effects to a plan: reads the volumes and asks the repository |
//! | [`authz`] | what a request to the engine means |
//! | [`refusal`] | a plan that refuses, as one message |
//! | [`undo`] | what was removed, and how it comes back |

pub mod argv;
pub mod authz;
pub mod content;
pub mod effects;
pub mod filter;
pub mod judge;
pub mod refusal;
pub mod request;
pub mod undo;
pub mod verdict;

pub use content::RepositoryAccess;
pub use effects::{Effects, Pending};
pub use filter::Filters;
pub use judge::{Judge, Policy};
pub use request::{Request, Step};
pub use verdict::{Action, Decision, Plan, PlannedContainer, PlannedVolume, Verdict};
