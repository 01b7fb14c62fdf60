//! The endpoints of an authorization plugin.
//!
//! What is harmless is answered at once, without a lock and without asking anybody: the decider's own questions to the engine
//! come through here as well, and must not wait for a decision. Everything that goes wrong in a decision is a refusal: a
//! failure, a panic, and a decision that takes too long.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::wire::{Question, Reply};
use crate::guard::authz::{Classified, Destroying, classify};

/// How long a decision may take if nothing else is configured, waiting included.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many decisions are made at once; each may hold the listing of a volume in memory.
pub const DECISIONS: usize = 8;

/// What was decided about a request that destroys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may be done.
    Allow,
    /// It must not, for this reason.
    Refuse(String),
}

/// Decides about requests that destroy.
#[async_trait]
pub trait Decide: Send + Sync + 'static {
    /// Decides about one request. `others` were asked for before it, and may be done at any moment: Docker's command removes several
    /// containers at once, and together they may destroy what none of them destroys alone. May be left running when nobody waits for
    /// the answer any more.
    async fn decide(&self, destroying: Destroying, others: Vec<Destroying>) -> Ruling;

    /// Is told what was answered to a request that is not harmless, or what is worth a line in a log otherwise.
    fn log(&self, text: &str);
}

/// The endpoints.
pub struct Authz {
    decider: Arc<dyn Decide>,
    timeout: Duration,
    permits: Arc<Semaphore>,
    counts: Counts,
    under_way: Mutex<Vec<UnderWay>>,
    next: AtomicU64,
}

/// A request that destroys: not decided yet, or allowed and perhaps not done yet.
struct UnderWay {
    number: u64,
    since: Instant,
    method: String,
    target: String,
    destroying: Destroying,
}

/// When a request that was allowed counts as done although the engine never said so.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    judged: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for Authz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authz").field("timeout", &self.timeout).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Authz {
    /// Endpoints that ask `decider`, and wait for it no longer than `timeout`.
    pub fn new(decider: Arc<dyn Decide>, timeout: Duration) -> Authz {
        Authz {
            decider,
            timeout,
            permits: Arc::new(Semaphore::new(DECISIONS)),
            counts: Counts::default(),
            under_way: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Answers "may this be done?". `body` is the engine's question; `None` if it could not be read.
    pub async fn request(&self, body: Option<&[u8]>) -> Reply {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let question = match body {
            None | Some([]) => Err("the engine's question did not arrive; try again".to_owned()),
            Some(bytes) => Question::parse(bytes).map_err(|e| format!("the engine's question cannot be read: {e}")),
        };
        let question = match question {
            Ok(question) => question,
            Err(reason) => return self.refuse("a request", reason),
        };
        // A panic in there would drop the connection, and the engine would ask again with an empty body.
        let classified = catch_unwind(AssertUnwindSafe(|| question.with_request(classify)))
            .unwrap_or_else(|_| Classified::Refused(PANICKED.to_owned()));
        match classified {
            Classified::Harmless => Reply::allow(),
            Classified::Noted(note) => {
                self.decider.log(&note);
                Reply::allow()
            }
            Classified::Refused(reason) => self.refuse(&question.describe(), reason),
            Classified::Destroys(destroying) => self.judge(&question, destroying).await,
        }
    }

    /// How it goes, for `voltool guard status`.
    pub fn status(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "requests": count(&self.counts.requests),
            "judged": count(&self.counts.judged),
            "refused": count(&self.counts.refused),
        })
    }

    /// Is told that the engine has done, or failed to do, what it was allowed. `body` is the engine's message; `None` if it could not be
    /// read.
    pub fn done(&self, body: Option<&[u8]>) {
        let Some(Ok(question)) = body.map(Question::parse) else { return };
        let mut under_way = self.under_way();
        // Two of the same do the same, so it does not matter which of them it is.
        let same = |other: &UnderWay| other.method == question.method() && other.target == question.target();
        if let Some(at) = under_way.iter().position(same) {
            under_way.remove(at);
        }
    }

    /// Whether anything is under way that the engine will say is done.
    pub fn waits(&self) -> bool {
        !self.under_way().is_empty()
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request before anything is looked at, so that whoever comes later knows of it; returns its number, and what came before it.
    fn enter(&self, question: &Question<'_>, destroying: &Destroying) -> (u64, Vec<Destroying>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut under_way = self.under_way();
        under_way.retain(|other| other.since.elapsed() < FORGOTTEN);
        let others = under_way.iter().map(|other| other.destroying.clone()).collect();
        under_way.push(UnderWay {
            number,
            since: Instant::now(),
            method: question.method().to_owned(),
            target: question.target().to_owned(),
            destroying: destroying.clone(),
        });
        (number, others)
    }

    async fn judge(&self, question: &Question<'_>, destroying: Destroying) -> Reply {
        let (number, others) = self.enter(question, &destroying);
        let reply = self.rule(destroying, others).await;
        if !reply.allow {
            self.under_way().retain(|other| other.number != number);
        }
        reply
    }

    async fn rule(&self, destroying: Destroying, others: Vec<Destroying>) -> Reply {
        self.counts.judged.fetch_add(1, Ordering::Relaxed);
        let command = destroying.command.clone();
        let (decider, permits) = (self.decider.clone(), self.permits.clone());
        // A task of its own, so that a panic ends nothing but itself. One that takes too long goes on, and keeps its permit: what
        // hangs on a dead file system cannot be called off, and must not pile up.
        let decision = tokio::spawn(async move {
            // Fails only if the semaphore is closed, which nobody does.
            let _permit = permits.acquire_owned().await;
            decider.decide(destroying, others).await
        });
        let ruling = match tokio::time::timeout(self.timeout, decision).await {
            Ok(Ok(ruling)) => ruling,
            Ok(Err(_)) => Ruling::Refuse(PANICKED.to_owned()),
            Err(_) => Ruling::Refuse(format!(
                "nobody could say within {:?} whether data would be lost (guard.timeout); try again, or back up what it would remove",
                self.timeout
            )),
        };
        match ruling {
            Ruling::Allow => {
                self.decider.log(&format!("allowed {command}"));
                Reply::allow()
            }
            Ruling::Refuse(reason) => self.refuse(&command, reason),
        }
    }

    fn refuse(&self, what: &str, reason: String) -> Reply {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.decider.log(&format!("refused {what}: {reason}"));
        Reply::deny(reason)
    }
}

const PANICKED: &str = "the guard failed while it judged this (a bug in voltool); its log says where";
