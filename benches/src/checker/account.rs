//! What has become of the messages of one stream: the counts that must stay zero.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;

/// What must never happen, and how often it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Messages that were sent and never came, though later ones did or the run was over.
    pub lost: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// Messages that came after later ones.
    pub reordered: u64,
    /// Frames with a byte that is wrong: header or payload, of another stream, or never sent.
    pub corrupted: u64,
    /// Connections that ended before the run did.
    pub disconnected: u64,
}

impl Faults {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { lost, repeated, reordered, corrupted, disconnected } = self;
        lost + repeated + reordered + corrupted + disconnected
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        let Self { lost, repeated, reordered, corrupted, disconnected } = other;
        self.lost += lost;
        self.repeated += repeated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.disconnected += disconnected;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, repeated, reordered, corrupted, disconnected } = self;
        write!(
            f,
            "lost {lost}, repeated {repeated}, reordered {reordered}, corrupted {corrupted}, \
             disconnected {disconnected}"
        )
    }
}

/// The account of one receiver. `sent`, where asked for, is how many messages of the stream have
/// been sent so far: they are numbered from 0.
#[derive(Debug, Default)]
pub struct Account {
    /// The number that comes next; `None` before the first message of a receiver that joins a
    /// stream which already flows.
    expected: Option<u64>,
    /// Numbers before `expected` that have not come.
    missing: BTreeSet<u64>,
    received: u64,
    faults: Faults,
}

impl Account {
    /// One that expects message 0 first.
    pub fn from_the_first() -> Self {
        Self { expected: Some(0), ..Self::default() }
    }

    /// One whose stream begins with whatever comes first.
    pub fn from_any() -> Self {
        Self::default()
    }

    /// Message `sequence` came, and was right in itself.
    pub fn receive(&mut self, sequence: u64, sent: u64) {
        let expected = self.expected.unwrap_or(sequence);
        if sequence >= sent {
            // Nobody has said this yet.
            self.faults.corrupted += 1;
            return;
        }
        self.received += 1;
        if sequence >= expected {
            self.missing.extend(expected..sequence);
            self.expected = Some(sequence + 1);
        } else if self.missing.remove(&sequence) {
            self.faults.reordered += 1;
        } else {
            self.faults.repeated += 1;
        }
    }

    /// Something came that is no message of this stream. It stands in the place of the next one,
    /// so that a changed message is not counted as a lost one, too.
    pub fn receive_corrupted(&mut self, sent: u64) {
        self.faults.corrupted += 1;
        if let Some(expected) = self.expected.as_mut().filter(|expected| **expected < sent) {
            *expected += 1;
        }
    }

    /// The connection has ended, and the run has not.
    pub fn disconnect(&mut self) {
        self.faults.disconnected += 1;
    }

    /// The run is over: what has not come by now is lost.
    pub fn close(&mut self, sent: u64) {
        let outstanding = self.outstanding(sent);
        self.faults.lost += outstanding;
        self.expected = self.expected.map(|expected| expected + outstanding);
    }

    /// Messages that are on their way.
    pub fn outstanding(&self, sent: u64) -> u64 {
        self.expected.map_or(0, |expected| sent.saturating_sub(expected))
    }

    /// Messages that have come, the repeated and the reordered included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The faults so far. A gap counts as lost messages until they come after all.
    pub fn faults(&self) -> Faults {
        Faults { lost: self.faults.lost + self.missing.len() as u64, ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults after these numbers of 10 messages sent have come, and the run is over.
    fn faults(account: Account, numbers: &[u64]) -> Faults {
        let mut account = account;
        for &number in numbers {
            account.receive(number, 10);
        }
        account.close(10);
        account.faults()
    }

    fn of_all(numbers: &[u64]) -> Faults {
        faults(Account::from_the_first(), numbers)
    }

    #[test]
    fn a_whole_stream_has_no_faults() {
        let all: Vec<u64> = (0..10).collect();
        assert_eq!(of_all(&all), Faults::default());
        assert_eq!(faults(Account::from_any(), &all[4..]), Faults::default());
        assert_eq!(of_all(&all).total(), 0);
    }

    #[test]
    fn a_lost_message_is_counted_wherever_it_was() {
        assert_eq!(of_all(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), Faults { lost: 1, ..Faults::default() });
        assert_eq!(of_all(&[0, 1, 2, 3, 6, 7, 8, 9]), Faults { lost: 2, ..Faults::default() });
        assert_eq!(of_all(&[0, 1, 2, 3, 4, 5, 6]), Faults { lost: 3, ..Faults::default() });
        assert_eq!(of_all(&[]), Faults { lost: 10, ..Faults::default() });
    }

    #[test]
    fn a_gap_is_seen_at_once() {
        let mut account = Account::from_the_first();
        account.receive(0, 10);
        assert_eq!((account.faults().lost, account.outstanding(10)), (0, 9));
        account.receive(2, 10);
        assert_eq!((account.faults().lost, account.outstanding(10)), (1, 7));
    }

    #[test]
    fn a_repeated_message_is_counted() {
        let found = of_all(&[0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3]);
        assert_eq!(found, Faults { repeated: 2, ..Faults::default() });
    }

    #[test]
    fn a_reordered_message_is_counted_and_not_lost() {
        let found = of_all(&[0, 2, 1, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(found, Faults { reordered: 1, ..Faults::default() });
        let found = of_all(&[0, 2, 1, 1, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(found, Faults { reordered: 1, repeated: 1, ..Faults::default() });
    }

    #[test]
    fn a_corrupted_message_is_counted_and_not_lost() {
        let mut account = Account::from_the_first();
        account.receive(0, 3);
        account.receive_corrupted(3);
        account.receive(2, 3);
        account.close(3);
        assert_eq!(account.faults(), Faults { corrupted: 1, ..Faults::default() });
        assert_eq!(account.received(), 2);
    }

    #[test]
    fn a_message_that_nobody_sent_is_corrupted() {
        let mut account = Account::from_the_first();
        account.receive(0, 0);
        account.receive_corrupted(0);
        account.receive(0, 1);
        account.close(1);
        assert_eq!(account.faults(), Faults { corrupted: 2, ..Faults::default() });
    }

    #[test]
    fn a_disconnection_loses_what_was_on_its_way() {
        let mut account = Account::from_the_first();
        account.receive(0, 3);
        account.disconnect();
        account.close(3);
        let faults = account.faults();
        assert_eq!(faults, Faults { lost: 2, disconnected: 1, ..Faults::default() });
        assert_eq!(faults.total(), 3);
    }

    #[test]
    fn faults_add_up() {
        let mut sum = Faults { lost: 1, repeated: 2, reordered: 3, corrupted: 4, disconnected: 5 };
        sum += sum;
        assert_eq!(sum.total(), 30);
        assert_eq!(
            sum.to_string(),
            "lost 2, repeated 4, reordered 6, corrupted 8, disconnected 10"
        );
    }
}
