//! What a failure does: `spec.failurePolicy.rules`, checked, and what is done where none of them matches.
//!
//! | failure | without a rule |
//! | --- | --- |
//! | the program says that its input is bad | the shard is given up: another attempt reads the same |
//! | out of memory | counts, and the next attempt prefers another node |
//! | a worker or its machine was lost | counts as a loss, see `losses.rs` |
//! | everything else | counts |
//!
//! A failure after which no attempt of any shard can do better ends the job before any rule is asked, input that is away while
//! there is a copy of it costs what a lost worker does, and an output that is full makes the whole job wait (`room.rs`): no
//! rule is about these.
//!
//! On the loss of a worker, rules are asked of what is known at that moment: first of `WorkerLost`, and again when the
//! cluster says why. Count then uses up an attempt of each shard that the worker had begun, and Ignore does what is done
//! without a rule. What FailShard or FailJob has given up stays so, whatever becomes known later. Before an image is there
//! nothing has begun, so on `ImagePull` only FailJob does something.

use std::collections::BTreeSet;

use hyperflow_api::{
    failure::{self, Class, FailureRule, Operator, RetryOn},
    message::{Failure, FailureClass},
};
use regex::{Regex, RegexBuilder};

use crate::job::Refusal;

/// What the program itself calls bad input, where it has no exit code to say so.
pub const BAD_INPUT: &str = "BadInput";

const FIELD: &str = "spec.failurePolicy.rules";

/// Most bytes of a compiled pattern: some texts of a few letters become very large.
const PATTERN_BYTES: usize = 1 << 18;

/// What is done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Another attempt, while there are any.
    Count,
    /// Another attempt that does not count.
    Ignore,
    /// Another attempt, as after the loss of a worker: what infrastructure costs without a rule.
    Move,
    /// No other attempt at this shard.
    FailShard,
    /// No other attempt at any.
    FailJob,
}

/// What is done about one failure, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// It.
    pub action: Action,
    /// The next attempt prefers another node.
    pub other_node: bool,
    /// Place of the rule in the spec, from 0; none where no rule matched.
    pub rule: Option<usize>,
}

impl Ruling {
    pub(crate) const MOVE: Self = Self { action: Action::Move, other_node: false, rule: None };

    /// For people: `; Ignore by spec.failurePolicy.rules[2]`.
    #[must_use]
    pub fn says(&self) -> String {
        match (self.rule, self.action) {
            (Some(rule), action) => format!("; {action:?} by {FIELD}[{rule}]"),
            (None, Action::FailShard) => "; bad input is not tried again".into(),
            (None, _) => String::new(),
        }
    }
}

/// The rules of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    action: Action,
    other_node: bool,
    codes: Option<(bool, BTreeSet<i32>)>,
    classes: BTreeSet<FailureClass>,
    pattern: Option<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Rules {
    pub(crate) fn check(rules: &[FailureRule]) -> Result<Self, Refusal> {
        let rules = rules.iter().enumerate().map(|(place, rule)| {
            Rule::check(rule).map_err(|message| Refusal { field: FIELD, message: format!("[{place}]: {message}") })
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// What is done about a failure that a worker reports.
    #[must_use]
    pub fn judge(&self, failure: &Failure) -> Ruling {
        self.matching(failure).unwrap_or_else(|| without_rule(failure))
    }

    /// What the first rule that matches says.
    #[must_use]
    pub fn matching(&self, failure: &Failure) -> Option<Ruling> {
        let (place, rule) = self.0.iter().enumerate().find(|(_, rule)| rule.matches(failure))?;
        Some(Ruling { action: rule.action, other_node: rule.other_node, rule: Some(place) })
    }
}

fn without_rule(failure: &Failure) -> Ruling {
    use FailureClass::{Application, BadInput, Evicted, ImagePull, NodeLost, OutOfMemory, Preempted, Store, Timeout};
    // The worker calls input bad as well that it cannot read just now: only what the program says of it is final.
    let said_by_program = failure.exit_code.is_some() || failure.reason == BAD_INPUT;
    let action = match failure.class {
        BadInput if said_by_program => Action::FailShard,
        Application | BadInput | Store | Timeout | OutOfMemory => Action::Count,
        FailureClass::WorkerLost | NodeLost | Evicted | Preempted | ImagePull => Action::Move,
    };
    Ruling { action, other_node: failure.class == OutOfMemory, rule: None }
}

impl Rule {
    fn check(rule: &FailureRule) -> Result<Self, String> {
        let FailureRule { action, on_exit_codes, on_classes, on_message_pattern, retry_on } = rule;
        let action = match action {
            failure::Action::Count => Action::Count,
            failure::Action::Ignore => Action::Ignore,
            failure::Action::FailShard => Action::FailShard,
            failure::Action::FailJob => Action::FailJob,
            failure::Action::Unknown => return unknown("action", "'Count', 'Ignore', 'FailShard' or 'FailJob'"),
        };
        if on_exit_codes.is_none() && on_classes.is_empty() && on_message_pattern.is_none() {
            return Err("must set at least one of `onExitCodes`, `onClasses` and `onMessagePattern`".into());
        }
        let other_node = match retry_on {
            None => false,
            Some(RetryOn::Unknown) => return unknown("retryOn", "'AnyNode' or 'OtherNode'"),
            Some(_) if !matches!(action, Action::Count | Action::Ignore) => {
                return Err(
                    "`retryOn` needs an `action` after which there is another attempt: 'Count' or 'Ignore'".into()
                );
            }
            Some(on) => *on == RetryOn::OtherNode,
        };
        let codes = match on_exit_codes.as_ref().map(|codes| (codes.operator, &codes.values)) {
            None => None,
            Some((Operator::Unknown, _)) => return unknown("onExitCodes.operator", "'In' or 'NotIn'"),
            Some((_, values)) if values.is_empty() => return Err("`onExitCodes.values` must not be empty".into()),
            Some((operator, values)) => Some((operator == Operator::In, values.iter().copied().collect())),
        };
        let pattern = on_message_pattern.as_ref().map(|text| {
            let pattern = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
            pattern.map(Pattern).map_err(|error| format!("`onMessagePattern` is no regular expression (RE2): {error}"))
        });
        Ok(Self {
            action,
            other_node,
            codes,
            classes: on_classes.iter().map(class).collect::<Result<_, _>>()?,
            pattern: pattern.transpose()?,
        })
    }

    /// All that it says must be so. A failure without an exit code is neither in a set of codes nor outside of it.
    fn matches(&self, failure: &Failure) -> bool {
        let codes = self
            .codes
            .as_ref()
            .is_none_or(|(within, codes)| failure.exit_code.is_some_and(|code| codes.contains(&code) == *within));
        let class = self.classes.is_empty() || self.classes.contains(&failure.class);
        codes && class && self.pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(&failure.message))
    }
}

fn class(class: &Class) -> Result<FailureClass, String> {
    Ok(match class {
        Class::Application => FailureClass::Application,
        Class::BadInput => FailureClass::BadInput,
        Class::OutOfMemory => FailureClass::OutOfMemory,
        Class::Timeout => FailureClass::Timeout,
        Class::Store => FailureClass::Store,
        Class::WorkerLost => FailureClass::WorkerLost,
        Class::NodeLost => FailureClass::NodeLost,
        Class::Evicted => FailureClass::Evicted,
        Class::Preempted => FailureClass::Preempted,
        Class::ImagePull => FailureClass::ImagePull,
        Class::Unknown => return unknown("onClasses", "those that the documentation of ShardJob names"),
    })
}

fn unknown<T>(field: &str, use_instead: &str) -> Result<T, String> {
    Err(format!("`{field}` is not known to this version of the operator; use {use_instead}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(rules: Value) -> Result<Rules, Refusal> {
        Rules::check(&serde_json::from_value::<Vec<FailureRule>>(rules).unwrap())
    }

    fn failure(class: FailureClass, exit_code: Option<i32>, message: &str) -> Failure {
        let (reason, message) = (class.name().to_owned() + "X", message.to_owned());
        Failure { class, reason, message, ends_job: false, checkpoint_unusable: false, exit_code }
    }

    #[test]
    fn the_first_rule_whose_words_are_all_so_decides() {
        let rules = rules(json!([
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}, "onMessagePattern": "(?i)licen[cs]e"},
            {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}, "retryOn": "OtherNode"},
            {"action": "FailShard", "onClasses": ["Timeout", "Store"]},
            {"action": "Count", "onMessagePattern": "^$"}
        ]))
        .unwrap();
        use FailureClass::{Application, Timeout};
        let judged = |class, code, message| {
            let ruling = rules.judge(&failure(class, code, message));
            (ruling.rule, ruling.action, ruling.other_node)
        };
        assert_eq!(judged(Application, Some(3), "no LICENSE left"), (Some(0), Action::FailJob, false));
        assert_eq!(judged(Application, Some(3), "anything else"), (Some(1), Action::Ignore, true));
        assert_eq!(judged(Timeout, Some(2), "late"), (Some(2), Action::FailShard, false));
        assert_eq!(judged(Timeout, None, "no code is neither in nor out"), (Some(2), Action::FailShard, false));
        assert_eq!(judged(Application, Some(1), ""), (Some(3), Action::Count, false));
        assert_eq!(judged(Application, None, "killed by signal 9"), (None, Action::Count, false));
    }

    #[test]
    fn without_a_rule_only_what_the_program_calls_bad_input_is_final() {
        use FailureClass::{Application, BadInput, NodeLost, OutOfMemory, Store, Timeout, WorkerLost};
        let none = Rules::default();
        let action = |class, code| none.judge(&failure(class, code, "")).action;
        assert_eq!(action(BadInput, Some(65)), Action::FailShard);
        assert_eq!(action(BadInput, None), Action::Count, "a read error may go away");
        let said = Failure { reason: BAD_INPUT.into(), ..failure(BadInput, None, "") };
        assert_eq!(none.judge(&said).action, Action::FailShard);
        for class in [Application, Store, Timeout, OutOfMemory] {
            assert_eq!(action(class, Some(1)), Action::Count);
        }
        assert_eq!((action(WorkerLost, None), action(NodeLost, None)), (Action::Move, Action::Move));
        assert!(none.judge(&failure(OutOfMemory, None, "")).other_node);
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_its_place() {
        for (rule, says) in [
            (json!({"action": "Shrug", "onClasses": ["Store"]}), "`action` is not known"),
            (json!({"action": "Count"}), "at least one of"),
            (json!({"action": "Count", "onClasses": ["Weather"]}), "`onClasses` is not known"),
            (json!({"action": "Count", "onMessagePattern": "a("}), "no regular expression"),
            (json!({"action": "Count", "onMessagePattern": "\\w{999}{999}"}), "no regular expression"),
            (json!({"action": "Count", "onMessagePattern": "a", "retryOn": "Moon"}), "`retryOn` is not known"),
            (json!({"action": "FailJob", "onMessagePattern": "a", "retryOn": "AnyNode"}), "`retryOn` needs"),
            (json!({"action": "Count", "onExitCodes": {"operator": "Near", "values": [1]}}), "operator` is not known"),
            (json!({"action": "Count", "onExitCodes": {"operator": "In", "values": []}}), "must not be empty"),
        ] {
            let refusal = rules(json!([{"action": "Count", "onClasses": ["Store"]}, rule])).unwrap_err();
            assert!(refusal.field == FIELD && refusal.message.starts_with("[1]: "), "{refusal}");
            assert!(refusal.message.contains(says), "{refusal}");
        }
    }
}
