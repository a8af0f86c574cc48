//! The adaptors of gradus, by the tests that run over its threads.

use gradus::distributed::RankGroup;
use gradus_mpi::MpiGroup;

use super::Test;
use super::compression::{all_ranks_get_the_mean, power_sgd_ends_as_well};
use super::data_parallel::{equals_one_process, none_is_none_on_all};
use super::faults_of_threads::a_failed_call_leaves_no_trace;
use super::local_steps::{fifty_steps_are_nearly_as_good, one_step_is_data_parallel};
use super::refusals::not_finite_on_one;
use super::sharded::{Run, equality, state};

pub(crate) const TESTS: &[Test] = &[
    ("data parallel equals one process, f64", equals_one_process::<f64, MpiGroup>),
    ("data parallel equals one process, f32", equals_one_process::<f32, MpiGroup>),
    ("no gradient is none on all", |group| none_is_none_on_all(group)),
    ("compression: all ranks get the mean", |group| all_ranks_get_the_mean(group)),
    ("compression: PowerSGD ends as well", |group| power_sgd_ends_as_well(group)),
    ("local steps: one is data parallel", |group| one_step_is_data_parallel(group)),
    ("local steps: fifty are nearly as good", |group| fifty_steps_are_nearly_as_good(group)),
    ("a failed call leaves no trace", a_failed_call_leaves_no_trace::<MpiGroup>),
    ("NaN on one rank", |group| not_finite_on_one(group)),
];

/// To the last bit, which is asked of sums in the order of the ranks.
pub(crate) const FIXED: &[Test] = &[
    ("sharded equals one process", sharded_equals_one_process),
    ("sharded clips the whole", sharded_clips_the_whole),
    ("sharded resumes", sharded_resumes),
];

/// The steps of which the sharded tests make use.
const STEPS: u64 = 7;

fn sharded_equals_one_process(group: &MpiGroup) {
    let run = Run::new(group.size(), STEPS);
    for (name, build) in equality::chains::<f64>() {
        equality::equals_one_process(group, &run, name, build, false);
    }
    for (name, build) in equality::chains_by_tensor() {
        equality::equals_one_process(group, &run, name, build, true);
    }
    let run = Run::new(group.size(), STEPS);
    for (name, build) in equality::chains::<f32>() {
        equality::equals_one_process(group, &run, name, build, false);
    }
}

fn sharded_clips_the_whole(group: &MpiGroup) {
    let run = Run::new(group.size(), STEPS);
    [false, true].into_iter().for_each(|by_tensor| equality::clips_the_whole(group, &run, by_tensor));
}

fn sharded_resumes(group: &MpiGroup) {
    let run = Run::new(group.size(), STEPS);
    equality::chains().into_iter().for_each(|(name, build)| state::resumes(group, &run, build, name));
}
