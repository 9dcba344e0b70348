//! A row: one figure of ours beside a peer's, over several runs, and what it is to reach.

/// What a figure is to reach. It also says which way is better.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// More is better: so many times the peer's figure.
    Times(f64),
    /// Less is better: at most this, whatever the peer does.
    Within(f64),
}

/// Which value stands for all runs.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// The one in the middle, or half-way between the two that are.
    Median,
    /// The one that 99 of 100 do not exceed.
    P99,
    /// The largest: a limit that is broken once is broken.
    Most,
}

/// A figure, and what it is to reach.
#[derive(Debug)]
pub struct Row {
    /// Also the file it is measured in, or the beginning of that name.
    pub name: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// What it is to reach.
    pub reach: Reach,
    /// Which value stands for all runs.
    pub of: Of,
}

/// What a peer did in one run.
#[derive(Clone, Debug)]
pub enum Peer {
    /// It ran beside us.
    Measured {
        /// What ran.
        name: String,
        /// Its figures.
        values: Vec<f64>,
    },
    /// It did not run: this is what its documentation says.
    Stated {
        /// What, and that it was not measured.
        name: String,
        /// The figure.
        value: f64,
    },
    /// There is no figure, and this is why.
    None(String),
}

/// One run of a row.
#[derive(Debug)]
pub struct Sample {
    /// Of which row.
    pub row: &'static Row,
    /// Our figures.
    pub ours: Vec<f64>,
    /// The peer's.
    pub peer: Peer,
    /// What else there is to say of this run.
    pub note: String,
}

/// All runs of a row.
#[derive(Debug)]
pub struct Runs {
    /// The row.
    pub row: &'static Row,
    /// Our figures, run by run.
    pub ours: Vec<f64>,
    /// The peer's.
    pub peer: Vec<f64>,
    /// Who the peer is, or why there is none.
    pub peer_name: String,
}

/// One figure of ours for all runs beside the peer's.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Ours.
    pub ours: f64,
    /// The peer's, if there is one.
    pub peer: Option<f64>,
    /// Above 1 we are better. Without a peer: than the limit.
    pub ratio: Option<f64>,
    /// The ratio to reach.
    pub reach: f64,
}

impl Verdict {
    /// Whether the reach was missed. Without a peer to compare with it was not.
    pub fn missed(self) -> bool {
        self.ratio.is_some_and(|ratio| ratio < self.reach)
    }
}

impl Runs {
    /// None so far.
    pub fn new(row: &'static Row) -> Self {
        Self { row, ours: Vec::new(), peer: Vec::new(), peer_name: String::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, sample: Sample) {
        self.ours.extend(sample.ours);
        match sample.peer {
            Peer::Measured { name, values } => {
                self.peer.extend(values);
                self.peer_name = name;
            }
            Peer::Stated { name, value } => {
                self.peer.push(value);
                self.peer_name = name;
            }
            // A peer that ran in another run keeps its name.
            Peer::None(why) if self.peer.is_empty() => self.peer_name = why,
            Peer::None(_) => {}
        }
    }

    /// What all runs come to; none when there was no run.
    pub fn verdict(&self) -> Option<Verdict> {
        let ours = self.row.of.pick(&self.ours)?;
        // A limit is compared with what the peer usually does, not with its worst.
        let peer = Of::Median.pick(&self.peer);
        let (ratio, reach) = match (self.row.reach, peer) {
            (Reach::Times(times), peer) => (peer.map(|peer| ours / peer), times),
            // The ratio at which ours is just within the limit: missed means the same in every row.
            (Reach::Within(limit), Some(peer)) => (Some(peer / ours), peer / limit),
            (Reach::Within(limit), None) => (Some(limit / ours), 1.0),
        };
        Some(Verdict { ours, peer, ratio, reach })
    }
}

impl Of {
    fn pick(self, values: &[f64]) -> Option<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        match self {
            Self::Median => Some(f64::midpoint(sorted[last / 2], sorted[sorted.len() / 2])),
            Self::P99 => sorted.get((sorted.len() * 99).div_ceil(100) - 1).copied(),
            Self::Most => sorted.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(reach: Reach, of: Of, ours: &[f64], peer: &[f64]) -> Runs {
        let row = Box::leak(Box::new(Row { name: "row", unit: "s", reach, of }));
        Runs { row, ours: ours.to_vec(), peer: peer.to_vec(), peer_name: "peer".into() }
    }

    fn verdict(reach: Reach, of: Of, ours: &[f64], peer: &[f64]) -> Verdict {
        runs(reach, of, ours, peer).verdict().unwrap()
    }

    #[test]
    fn medians_are_compared_and_more_is_better() {
        let found = verdict(Reach::Times(4.0), Of::Median, &[9.0, 1.0, 8.0], &[2.0, 100.0, 1.0]);
        assert!((found.ours - 8.0).abs() < 1e-9 && !found.missed());
        assert!(verdict(Reach::Times(4.1), Of::Median, &[8.0], &[2.0]).missed());
        let between = verdict(Reach::Times(1.0), Of::Median, &[4.0, 1.0, 2.0, 9.0], &[1.0]);
        assert!((between.ours - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_limit_is_missed_exactly_when_it_is_exceeded() {
        for peer in [&[12.0][..], &[]] {
            assert!(!verdict(Reach::Within(0.5), Of::Median, &[0.5], peer).missed());
            assert!(verdict(Reach::Within(0.5), Of::Median, &[0.51], peer).missed());
        }
        let found = verdict(Reach::Within(0.5), Of::Median, &[0.25], &[12.0]);
        assert!((found.ratio.unwrap() - 48.0).abs() < 1e-9 && (found.reach - 24.0).abs() < 1e-9);
    }

    #[test]
    fn one_slow_run_of_few_is_the_99th_percentile_and_the_most() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert!(verdict(Reach::Within(19.0), Of::P99, &values, &[]).missed());
        assert!(verdict(Reach::Within(19.0), Of::Most, &values, &[]).missed());
        assert!(!verdict(Reach::Within(11.0), Of::Median, &values, &[]).missed());
    }

    #[test]
    fn without_a_peer_nothing_is_said_of_a_ratio_to_it() {
        let mut all = runs(Reach::Times(10.0), Of::Median, &[5.0], &[]);
        assert!(all.verdict().unwrap().ratio.is_none());
        let peer = Peer::None("it cannot be installed".into());
        all.add(Sample { row: all.row, ours: vec![5.0], peer, note: String::new() });
        assert_eq!((all.peer_name.as_str(), all.ours.len()), ("it cannot be installed", 2));
        assert!(runs(Reach::Times(1.0), Of::Median, &[], &[1.0]).verdict().is_none());
    }
}
