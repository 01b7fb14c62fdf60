//! The lease of a volume that several hosts use: at most one of them at a time writes to it and commits its snapshots. The protocol
//! is in `docs/format.md`, "Leases"; `tests/model/lease_model.py` explores it.
//!
//! A lease has an *epoch*, a number that grows from holder to holder. Safety rests on it and on the order of PUT and LIST, never on a
//! clock and never on conditional writes: of two hosts that ask at the same time, at least one sees the other and yields.
//!
//! What a caller does:
//!
//! 1. [`Lease::acquire`]. If it says [`Acquired::Busy`], wait, or refuse with the holder's name, or [`Lease::take_over`] if the user says
//!    so.
//! 2. Write [`Lease::held`] to disk *before* the volume is used, then make the content current: [`Previous`] says whether it is. Then
//!    [`Lease::tidy`].
//! 3. Give [`Lease::held`] to [`Source::lease`](crate::snapshot::Source::lease) of every backup. After a restart, [`Lease::resume`]
//!    and [`Lease::check`].
//! 4. Write to disk that it is given back, then [`Lease::release`]; and keep [`Lease::held`]: it is the `last` of the next
//!    [`Lease::acquire`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{RepoError, Repository, Result};
use crate::store::ObjectInfo;

/// How often a host asks again after it yielded to another that asked at the same time. Each time the wait is twice as long.
const ATTEMPTS: u32 = 8;
/// The longest wait before a host asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A host that uses shared volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What tells it from all others: made once, and kept in its state folder. Two hosts with one id take each other's leases for
    /// their own, so it must not be copied to another machine.
    pub id: Ulid,
    /// What people call it.
    pub name: String,
}

/// A claim to a lease, and once it is held what its holder keeps on disk. They are ordered by epoch, then by claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeldLease {
    /// The epoch. No two holders ever have the same one, and each has a higher one than those before.
    pub epoch: u64,
    /// Which claim to that epoch.
    #[serde(with = "ulid_text")]
    pub claim: Ulid,
}

/// Who holds, or held, a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What it holds.
    pub lease: HeldLease,
    /// Which host it is; `None` if its object is damaged.
    pub host: Option<Host>,
    /// When it asked for the lease, by its own clock: for people.
    pub since: Option<Timestamp>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "host {} (epoch {})", host.name, self.lease.epoch),
            None => write!(f, "a host whose name cannot be read (epoch {})", self.lease.epoch),
        }
    }
}

/// Who used the volume before: whether a host's own copy of it is current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Previous {
    /// Nobody ever held this lease.
    Nobody,
    /// The claim that the caller gave as its last one: nobody used the volume since, so its copy is current.
    Ours,
    /// This one, or nobody can tell: the caller's copy may be out of date, and the newest snapshot is what counts. It may have been the
    /// same host, if that host does not know (its disk was lost).
    Another(Holder),
}

/// What became of asking for a lease.
#[derive(Debug)]
pub enum Acquired {
    /// The caller holds it.
    Held(Lease, Previous),
    /// Somebody else does.
    Busy(Holder),
}

/// Whether a lease is still its holder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Ours,
    /// It is not: somebody took it over; or, with `None`, it was released, or its objects are no longer there.
    Lost(Option<Holder>),
}

/// The content of a claim, for both `….claim` and `….held`.
#[derive(Serialize, Deserialize)]
struct ClaimObject {
    epoch: u64,
    #[serde(with = "ulid_text")]
    claim: Ulid,
    #[serde(with = "ulid_text")]
    host: Ulid,
    name: String,
    time: Timestamp,
}

/// The kinds of objects that belong to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Somebody asks.
    Claim,
    /// It holds, unless it withdraws.
    Held,
    /// It held, and gave it back.
    Released,
    /// It never held, whatever else is there or turns up late.
    Withdrawn,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Claim, Kind::Held, Kind::Released, Kind::Withdrawn];

    fn name(self) -> &'static str {
        match self {
            Kind::Claim => "claim",
            Kind::Held => "held",
            Kind::Released => "released",
            Kind::Withdrawn => "withdrawn",
        }
    }
}

/// What one LIST of a volume's leases tells.
#[derive(Debug, Default)]
struct View {
    /// Every claim with the kinds of its objects, lowest first.
    claims: BTreeMap<HeldLease, Vec<Kind>>,
}

impl View {
    /// Objects with other names are nobody's claims.
    fn of(prefix: &str, objects: &[ObjectInfo]) -> View {
        let mut view = View::default();
        for object in objects {
            let parse = || {
                let mut parts = object.key.strip_prefix(prefix)?.split('.');
                let (epoch, claim, kind) = (parts.next()?, parts.next()?, parts.next()?);
                let kind = Kind::ALL.into_iter().find(|k| k.name() == kind).filter(|_| parts.next().is_none())?;
                Some((HeldLease { epoch: epoch.parse().ok()?, claim: Ulid::from_string(claim).ok()? }, kind))
            };
            if let Some((claim, kind)) = parse() {
                view.claims.entry(claim).or_default().push(kind);
            }
        }
        view
    }

    fn has(&self, claim: HeldLease, kind: Kind) -> bool {
        self.claims.get(&claim).is_some_and(|kinds| kinds.contains(&kind))
    }

    /// The claims that were held and not withdrawn, highest first.
    fn held(&self) -> impl Iterator<Item = HeldLease> {
        let held = |kinds: &[Kind]| kinds.contains(&Kind::Held) && !kinds.contains(&Kind::Withdrawn);
        self.claims.iter().rev().filter(move |(_, kinds)| held(kinds)).map(|(claim, _)| *claim)
    }

    /// Who holds the lease. Of those that were held only the highest counts: it was held because the others were over.
    fn holder(&self) -> Option<HeldLease> {
        self.held().next().filter(|top| !self.has(*top, Kind::Released))
    }

    /// Whether no other claim is above this one.
    fn is_highest(&self, mine: HeldLease) -> bool {
        !self.claims.iter().any(|(claim, kinds)| *claim > mine && !kinds.contains(&Kind::Withdrawn))
    }

    /// Whether a claim may be held, as it is seen after it was put. `over` is the holder that it takes over.
    fn may_be_held(&self, mine: HeldLease, over: Option<HeldLease>) -> bool {
        // An epoch that was held is over for good, even if it was given back: two hosts must not commit under one number.
        let above = self.held().next().is_none_or(|top| top.epoch < mine.epoch);
        self.is_highest(mine) && above && self.holder().is_none_or(|holder| Some(holder) == over)
    }
}

/// The lease of one volume, held by this host as far as it knows.
#[derive(Debug, Clone)]
pub struct Lease {
    repo: Arc<Repository>,
    /// `leases/<source>/`
    prefix: String,
    volume: String,
    held: HeldLease,
}

impl Lease {
    /// Asks for the lease of `volume` as `host`. `last` is the claim that this host used last, as it is on its disk.
    ///
    /// A lease that this host holds already is no obstacle: it gets a new epoch, and whoever else works under the old one on this host
    /// has lost it. So a host that died between being given the lease and writing that down asks again. If the caller stops waiting, a
    /// lease that comes too late is released.
    ///
    /// # Errors
    /// [`RepoError::LeaseContended`] if others kept asking at the same time; then asking again later helps.
    pub async fn acquire(
        repo: &Arc<Repository>,
        engine: &str,
        volume: &str,
        host: &Host,
        last: Option<HeldLease>,
    ) -> Result<Acquired> {
        Request::new(repo, engine, volume, host, last, None).send().await
    }

    /// As [`Lease::acquire`], but does not mind that `from` holds the lease: from then on it has lost it. Whoever else came to hold it in
    /// the meantime is not taken over, but returned as [`Acquired::Busy`].
    ///
    /// # Errors
    /// As [`Lease::acquire`].
    pub async fn take_over(
        repo: &Arc<Repository>,
        engine: &str,
        volume: &str,
        host: &Host,
        last: Option<HeldLease>,
        from: &Holder,
    ) -> Result<Acquired> {
        Request::new(repo, engine, volume, host, last, Some(from.lease)).send().await
    }

    /// A lease that this host held when it wrote `held` to its disk. Asks nobody; [`Lease::check`] does.
    pub fn resume(repo: &Arc<Repository>, engine: &str, volume: &str, held: HeldLease) -> Lease {
        Lease { repo: repo.clone(), prefix: prefix(repo, engine, volume), volume: volume.to_owned(), held }
    }

    /// Who holds the lease of `volume`, if anybody does. One LIST, and one GET.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn holder(repo: &Repository, engine: &str, volume: &str) -> Result<Option<Holder>> {
        let prefix = prefix(repo, engine, volume);
        match view(repo, &prefix).await?.holder() {
            Some(claim) => holder(repo, &prefix, claim).await,
            None => Ok(None),
        }
    }

    /// What its holder keeps on disk.
    pub fn held(&self) -> HeldLease {
        self.held
    }

    /// Whether it is still this host's. One LIST; and one GET if it is not.
    ///
    /// # Errors
    /// If the storage fails: then nobody knows.
    pub async fn check(&self) -> Result<Standing> {
        let seen = view(&self.repo, &self.prefix).await?;
        if seen.holder() == Some(self.held) {
            return Ok(Standing::Ours);
        }
        match seen.held().next().filter(|top| *top > self.held) {
            Some(top) => {
                let unnamed = Holder { lease: top, host: None, since: None };
                Ok(Standing::Lost(Some(holder(&self.repo, &self.prefix, top).await?.unwrap_or(unnamed))))
            }
            None => Ok(Standing::Lost(None)),
        }
    }

    /// As [`Lease::check`], with the loss as an error.
    ///
    /// # Errors
    /// [`RepoError::LeaseLost`] if it is no longer this host's.
    pub async fn ensure(&self) -> Result<()> {
        match self.check().await? {
            Standing::Ours => Ok(()),
            Standing::Lost(to) => {
                let (volume, epoch) = (self.volume.clone(), self.held.epoch);
                Err(RepoError::LeaseLost { volume, epoch, to: to.map(Box::new) })
            }
        }
    }

    /// Deletes what is left of earlier holders and of hosts that asked in vain. Only once [`Lease::held`] is on disk: what is deleted
    /// here is what would tell the next [`Lease::acquire`] who used the volume before.
    ///
    /// Safe while others ask: whoever has a lower claim sees this one, which is higher and stays, before it can hold; and epochs go on
    /// from this one. Nothing depends on this being done.
    ///
    /// # Errors
    /// If the storage fails; the rest is deleted another time.
    pub async fn tidy(&self) -> Result<()> {
        let seen = view(&self.repo, &self.prefix).await?;
        if !seen.has(self.held, Kind::Held) {
            return Ok(());
        }
        // Lowest first: at every moment the highest of those that used the volume is still there.
        for (claim, kinds) in seen.claims.range(..self.held) {
            for kind in kinds {
                self.repo.store().delete(&key(&self.prefix, *claim, *kind)).await?;
            }
        }
        Ok(())
    }

    /// Gives it back. Its objects stay, because the next epoch goes on from them. No backup may be under way.
    ///
    /// From here on it must not be used, even if this fails: a PUT that is said to have failed may take effect later. So that it is to be
    /// given back has to be on disk *before*.
    ///
    /// # Errors
    /// If the storage fails: then others may still see it as held, and it has to be released again.
    pub async fn release(&self) -> Result<()> {
        Ok(self.repo.store().put(&key(&self.prefix, self.held, Kind::Released), Bytes::new()).await?)
    }
}

/// A host that asks.
struct Request {
    repo: Arc<Repository>,
    prefix: String,
    volume: String,
    host: Host,
    last: Option<HeldLease>,
    over: Option<HeldLease>,
}

impl Request {
    fn new(
        repo: &Arc<Repository>,
        engine: &str,
        volume: &str,
        host: &Host,
        last: Option<HeldLease>,
        over: Option<HeldLease>,
    ) -> Request {
        let prefix = prefix(repo, engine, volume);
        Request { repo: repo.clone(), prefix, volume: volume.to_owned(), host: host.clone(), last, over }
    }

    /// Asks in a task of its own. A caller that stops waiting must not leave a lease behind that nobody knows of: to others this host
    /// would seem to hold it for as long as it lives.
    async fn send(self) -> Result<Acquired> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            if let Err(Ok(Acquired::Held(lease, _))) = sender.send(self.ask().await) {
                let _ = lease.release().await;
            }
        });
        receiver.await.map_err(|e| RepoError::Codec(format!("asking for a lease stopped unexpectedly: {e}")))?
    }

    async fn ask(self) -> Result<Acquired> {
        for n in 0..ATTEMPTS {
            let begun = Instant::now();
            if let Some(done) = self.attempt().await? {
                return Ok(done);
            }
            // As long as an attempt takes on this storage, so that another host has the time for a whole one.
            let longest = (begun.elapsed() * 2u32.pow(n)).min(LONGEST_WAIT);
            tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
        }
        Err(RepoError::LeaseContended { volume: self.volume })
    }

    /// `None` if it yielded.
    async fn attempt(&self) -> Result<Option<Acquired>> {
        let seen = self.view().await?;
        let mut over = None;
        if let Some(claim) = seen.holder() {
            // What is gone by now was deleted by somebody who holds by now.
            let Some(holder) = holder(&self.repo, &self.prefix, claim).await? else { return Ok(None) };
            let own = holder.host.as_ref().is_some_and(|host| host.id == self.host.id);
            if !own && self.over != Some(claim) {
                return Ok(Some(Acquired::Busy(holder)));
            }
            over = Some(claim);
        }
        let highest = seen.claims.keys().next_back().map_or(0, |claim| claim.epoch);
        let epoch = highest.checked_add(1).ok_or_else(|| RepoError::damaged(&self.prefix, "no epoch is left"))?;
        let mine = HeldLease { epoch, claim: Ulid::generate() };
        let object = ClaimObject {
            epoch,
            claim: mine.claim,
            host: self.host.id,
            name: self.host.name.clone(),
            time: Timestamp::now(),
        };
        let json = serde_json::to_vec(&object).map_err(|e| RepoError::Codec(e.to_string()))?;
        let object = Bytes::from(self.repo.keys().sealer.seal(json)?.0);

        let claimed = async {
            self.put(mine, Kind::Claim, object.clone()).await?;
            self.view().await
        };
        let seen = match claimed.await {
            Ok(seen) if seen.may_be_held(mine, over) => seen,
            result => {
                // A claim that stays behind is in nobody's way: the next one is above it.
                let _ = self.repo.store().delete(&key(&self.prefix, mine, Kind::Claim)).await;
                return result.map(|_| None);
            }
        };
        self.must_list(&seen, mine, Kind::Claim)?;

        let held = async {
            self.put(mine, Kind::Held, object).await?;
            let seen = self.view().await?;
            if !seen.is_highest(mine) {
                return Ok(None);
            }
            self.must_list(&seen, mine, Kind::Held)?;
            self.previous(&seen, mine).await.map(Some)
        };
        match held.await {
            Ok(Some(previous)) => {
                let (repo, prefix, volume) = (self.repo.clone(), self.prefix.clone(), self.volume.clone());
                Ok(Some(Acquired::Held(Lease { repo, prefix, volume, held: mine }, previous)))
            }
            result => {
                // Deleting would not do: a PUT that was said to have failed may still take effect later.
                let withdrawn = self.put(mine, Kind::Withdrawn, Bytes::new()).await;
                result.and(withdrawn).map(|()| None)
            }
        }
    }

    async fn view(&self) -> Result<View> {
        view(&self.repo, &self.prefix).await
    }

    async fn put(&self, claim: HeldLease, kind: Kind, object: Bytes) -> Result<()> {
        Ok(self.repo.store().put(&key(&self.prefix, claim, kind), object).await?)
    }

    /// Everything rests on a LIST that shows what was put before it.
    fn must_list(&self, seen: &View, mine: HeldLease, kind: Kind) -> Result<()> {
        if seen.has(mine, kind) {
            return Ok(());
        }
        let key = key(&self.prefix, mine, kind);
        Err(RepoError::damaged(key, "it was written, but the storage does not list it"))
    }

    /// Who used the volume before `mine`. The highest of those that did is always listed, because only who used it later deletes it.
    async fn previous(&self, seen: &View, mine: HeldLease) -> Result<Previous> {
        let mut unused = None;
        for claim in seen.held().filter(|claim| *claim < mine) {
            if Some(claim) == self.last {
                return Ok(Previous::Ours);
            }
            let unnamed = Holder { lease: claim, host: None, since: None };
            let holder = holder(&self.repo, &self.prefix, claim).await?.unwrap_or(unnamed);
            if holder.host.as_ref().is_none_or(|host| host.id != self.host.id) {
                return Ok(Previous::Another(holder));
            }
            // This host was given it, and never wrote that down: it did not come to use it.
            unused = unused.or(Some(holder));
        }
        // Or it did, and its disk was lost. Then the snapshots are what there is.
        Ok(unused.map_or(Previous::Nobody, Previous::Another))
    }
}

fn prefix(repo: &Repository, engine: &str, volume: &str) -> String {
    format!("leases/{}/", repo.keys().source_name(engine, volume))
}

fn key(prefix: &str, claim: HeldLease, kind: Kind) -> String {
    format!("{prefix}{:010}.{}.{}", claim.epoch, claim.claim, kind.name())
}

async fn view(repo: &Repository, prefix: &str) -> Result<View> {
    Ok(View::of(prefix, &repo.store().list(prefix).await?))
}

/// Reads who holds with that claim. `None` if it is no longer there.
async fn holder(repo: &Repository, prefix: &str, claim: HeldLease) -> Result<Option<Holder>> {
    let key = key(prefix, claim, Kind::Held);
    let sealed = match repo.store().get(&key).await {
        Ok(sealed) => sealed,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // That it holds, its name says; only who it is stands in it.
    let object = repo.keys().sealer.open(&key, sealed).ok();
    let object = object.and_then(|json| serde_json::from_slice::<ClaimObject>(&json).ok());
    let object = object.filter(|o| (o.epoch, o.claim) == (claim.epoch, claim.claim));
    let since = object.as_ref().map(|o| o.time);
    Ok(Some(Holder { lease: claim, host: object.map(|o| Host { id: o.host, name: o.name }), since }))
}

/// ULIDs as text.
mod ulid_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use ulid::Ulid;

    pub fn serialize<S: Serializer>(id: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
        Ulid::from_string(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
