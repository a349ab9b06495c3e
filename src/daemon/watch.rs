//! Looks again when the host changed, and now and then without a reason.
//!
//! Events only say that something changed; what it is now, and whether it matters, the engine
//! finds out. Bursts are waited out, and looking never takes more than a small part of the time;
//! only a foreign hand on our firewall table is answered at once, since bridges are without their
//! guard until it is repaired.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::notify;
use crate::engine::Handle;
use crate::kernel::KernelError;
use crate::kernel::linux::Linux;
use crate::kernel::linux::events::{Monitor, Settings};
use crate::kernel::linux::nft::{self, Touched};
use crate::model::{Error, Result};
use crate::object::ObjectKey;
use crate::plan::Plan;

/// How often settings are looked at that nobody announces: [::1] must not stay silent for long when
/// bridged packets begin to pass netfilter.
const SETTINGS: Duration = Duration::from_secs(1);
/// How long nothing must happen before we look.
const QUIET: Duration = Duration::from_millis(500);
/// How long a storm of events can put a look off.
const STORM: Duration = Duration::from_secs(5);
/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest: reached when each look finds something to repair, so that another tool that undoes
/// our repairs is not fought for ever.
const PAUSE_AT_MOST: Duration = Duration::from_secs(60);
/// How many times longer than a look the time until the next is: a guess that keeps the engine free
/// for attaches on hosts where a look takes long.
const SHARE: u32 = 20;
/// When we look although nothing was heard.
const SLOW: Duration = Duration::from_secs(60);

/// The shortest time between two looks of which the second is an alarm's.
const ALARM_PAUSE: Duration = Duration::from_millis(100);
/// The same when alarms do not end: a tool that undoes each repair at once is answered, but does
/// not keep the engine from its work.
const ALARM_PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// How long no alarm must come for the next one to be answered as the first was.
const CALM: Duration = Duration::from_secs(60);

/// Hears of changes of the host; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Ear(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    changed: Notify,
    alarm: Notify,
}

/// How soon to look after something was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// When the burst is over.
    Changed,
    /// Without waiting for anything.
    Alarm,
}

impl Ear {
    /// Something happened.
    pub(super) fn heard(&self, call: Call) {
        match call {
            Call::Changed => self.0.changed.notify_one(),
            Call::Alarm => self.0.alarm.notify_one(),
        }
    }

    /// Waits until it is time to look, and says whether for an alarm.
    async fn wait(&self) -> Call {
        let quiet = async {
            // Heard or not: it is time.
            if timeout(SLOW, self.0.changed.notified()).await.is_ok() {
                wait_for_quiet(self).await;
            }
        };
        // A change that was heard before an alarm's look is seen by that look.
        tokio::select! {
            biased;
            () = self.0.alarm.notified() => Call::Alarm,
            () = quiet => Call::Changed,
        }
    }

    /// Sleeps for `pause`, and no longer than `at_least` when there is an alarm.
    async fn rest(&self, pause: Duration, at_least: Duration) {
        sleep(at_least.min(pause)).await;
        if timeout(pause.saturating_sub(at_least), self.0.alarm.notified()).await.is_ok() {
            // Left for whoever waits next.
            self.0.alarm.notify_one();
        }
    }
}

/// The subscriptions to what the kernel tells.
#[derive(Debug)]
pub(super) struct Subscriptions {
    links: Monitor,
    firewall: nft::Monitor,
}

impl Subscriptions {
    /// Subscribes in the calling thread's namespace to what others than `kernel` do.
    pub(super) fn open(kernel: &mut Linux) -> Result<Self> {
        let failed = |error: KernelError| {
            Error::unavailable("watch the host for changes", error.to_string())
                .with_errno(error.errno)
        };
        let port = kernel.firewall_port().map_err(failed)?;
        let firewall = nft::Monitor::open(port)
            .map_err(|error| KernelError::new(error.raw_os_error().unwrap_or(0), ""));
        let links = kernel.route_port().and_then(Monitor::open);
        Ok(Self { links: links.map_err(failed)?, firewall: firewall.map_err(failed)? })
    }

    /// Listens to the kernel on threads of their own, which end with the process: they wait inside
    /// the kernel and hold nothing.
    pub(super) fn listen(self, ear: &Ear) -> std::io::Result<()> {
        let Self { mut links, mut firewall } = self;
        let mut settings = Settings::open(SETTINGS);
        listen("watch-settings", ear.clone(), move || {
            settings.changed();
            Ok(Some(Call::Changed))
        })?;
        listen("watch-links", ear.clone(), move || {
            let event = links.next(None).map_err(|error| error.to_string())?;
            Ok(event.map(|_| Call::Changed))
        })?;
        listen("watch-firewall", ear.clone(), move || {
            let nft::Event { pid, process, touched, .. } =
                firewall.next().map_err(|error| error.to_string())?;
            tracing::debug!(process, pid, ?touched, "nf_tables was changed");
            Ok(Some(call_for(touched)))
        })
    }
}

/// Of other tables only iptables' own concern us: the accept in DOCKER-USER.
fn call_for(touched: Touched) -> Call {
    match touched {
        Touched::OurTable | Touched::Unknown => Call::Alarm,
        Touched::Elsewhere => Call::Changed,
    }
}

fn listen(
    name: &'static str,
    ear: Ear,
    mut next: impl FnMut() -> Result<Option<Call>, String> + Send + 'static,
) -> std::io::Result<()> {
    let listen = move || {
        loop {
            match next() {
                Ok(call) => call.into_iter().for_each(|call| ear.heard(call)),
                Err(error) => {
                    tracing::error!(
                        %error,
                        "{name}: changes are not heard any more; the host is looked at every minute"
                    );
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(listen).map(drop)
}

/// Looks until the engine has stopped.
pub(super) async fn look(engine: Handle, ear: Ear) {
    let mut pause = PAUSE;
    let mut last = BTreeSet::new();
    let mut alarms = Alarms::default();
    loop {
        let call = ear.wait().await;
        let began = Instant::now();
        if call == Call::Alarm {
            alarms.count(began);
        }
        let Ok((result, sizes)) = engine.run(|engine| (engine.reconcile(), sizes(engine))).await
        else {
            return;
        };
        let (found, repaired) = report(result, &last);
        pause = next_pause(pause, found);
        last = repaired;
        notify::status(&sizes);
        let took = began.elapsed();
        ear.rest(pause.max(took * SHARE), alarms.pause.max(took)).await;
    }
}

/// How often alarms are answered.
#[derive(Debug, Default)]
struct Alarms {
    last: Option<Instant>,
    pause: Duration,
}

impl Alarms {
    fn count(&mut self, now: Instant) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) > CALM);
        let longer = (self.pause * 2).clamp(ALARM_PAUSE, ALARM_PAUSE_AT_MOST);
        self.pause = if calm { ALARM_PAUSE } else { longer };
        self.last = Some(now);
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All was as intended, or something was repaired that the look before had not touched.
    Order,
    /// The same had to be repaired again, or something could not be.
    Disorder,
}

fn next_pause(pause: Duration, found: Found) -> Duration {
    match found {
        Found::Order => PAUSE,
        Found::Disorder => {
            let next = (pause * 2).min(PAUSE_AT_MOST);
            if next == PAUSE_AT_MOST && pause < next {
                tracing::warn!(
                    "each look at the host finds something to repair: another tool may be undoing \
                     it; `netagent status` shows what"
                );
            }
            next
        }
    }
}

/// Logs what was repaired, and compares it with what the `last` look repaired.
fn report(result: Result<Plan>, last: &BTreeSet<ObjectKey>) -> (Found, BTreeSet<ObjectKey>) {
    let plan = match result {
        Ok(plan) => plan,
        Err(error) => {
            tracing::error!(%error, "the host could not be made as intended");
            return (Found::Disorder, BTreeSet::new());
        }
    };
    for step in &plan.steps {
        tracing::info!(op = %step.op, why = step.why, "repaired");
    }
    let repaired: BTreeSet<ObjectKey> = plan.steps.iter().map(|step| step.op.key()).collect();
    let found = if repaired.is_disjoint(last) { Found::Order } else { Found::Disorder };
    (found, repaired)
}

async fn wait_for_quiet(ear: &Ear) {
    let storm = Instant::now() + STORM;
    while timeout(QUIET, ear.0.changed.notified()).await.is_ok() && Instant::now() < storm {}
}

/// For `systemctl status`.
pub(super) fn sizes(engine: &mut crate::engine::Engine) -> String {
    let intent = engine.intent();
    format!("{} networks, {} endpoints", intent.networks().count(), intent.endpoints().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_given_up_slowly_and_peace_ends_it() {
        let mut pause = PAUSE;
        for seconds in [4, 8, 16, 32, 60, 60] {
            pause = next_pause(pause, Found::Disorder);
            assert_eq!(pause, Duration::from_secs(seconds));
        }
        assert_eq!(next_pause(pause, Found::Order), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_look_and_a_storm_ends_the_waiting() {
        let ear = Ear::default();
        let began = Instant::now();
        wait_for_quiet(&ear).await;
        assert_eq!(began.elapsed(), QUIET);
        let noisy = ear.clone();
        let noise = tokio::spawn(async move {
            loop {
                noisy.heard(Call::Changed);
                sleep(QUIET / 2).await;
            }
        });
        let began = Instant::now();
        wait_for_quiet(&ear).await;
        assert!(began.elapsed() >= STORM && began.elapsed() < STORM + QUIET);
        noise.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_on_our_table_is_answered_without_quiet_pause_or_back_off() {
        let ear = Ear::default();
        ear.heard(call_for(Touched::Elsewhere));
        let later = ear.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(200)).await;
            later.heard(call_for(Touched::OurTable));
        });
        let began = Instant::now();
        assert_eq!(ear.wait().await, Call::Alarm);
        assert_eq!(began.elapsed(), Duration::from_millis(200), "no quiet is waited for");

        let later = ear.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(20)).await;
            later.heard(Call::Changed);
            later.heard(Call::Alarm);
        });
        let began = Instant::now();
        ear.rest(PAUSE_AT_MOST, ALARM_PAUSE).await;
        assert_eq!(ear.wait().await, Call::Alarm);
        assert_eq!(began.elapsed(), ALARM_PAUSE);
        // The other change is not forgotten.
        assert_eq!(ear.wait().await, Call::Changed);
        assert_eq!(began.elapsed(), ALARM_PAUSE + QUIET);

        ear.rest(PAUSE, ALARM_PAUSE).await;
        assert_eq!(began.elapsed(), ALARM_PAUSE + QUIET + PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_without_end_are_answered_slower_until_it_is_calm() {
        let mut alarms = Alarms::default();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for seconds in [0, 1, 2, 3, 4, 5, 6, 7, 100] {
            alarms.count(now + Duration::from_secs(seconds));
            pauses.push(alarms.pause.as_millis());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 100]);
    }
}
