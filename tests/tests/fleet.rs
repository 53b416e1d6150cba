//! Tests that need real Docker hosts; they share one fleet of three where they can.

use std::process::ExitCode;

use dhow_tests::{FleetOptions, cases, suite};

#[path = "fleet/clean.rs"]
mod clean;
#[path = "fleet/demo.rs"]
mod demo;
#[path = "fleet/deploy.rs"]
mod deploy;
#[path = "fleet/golden.rs"]
mod golden;
#[path = "fleet/host.rs"]
mod host;
#[path = "fleet/images.rs"]
mod images;
#[path = "fleet/kamal.rs"]
mod kamal;
#[path = "fleet/secrets.rs"]
mod secrets;

fn main() -> ExitCode {
    let cases = cases![
        host::hosts_have_their_own_engine_address_and_home,
        host::a_power_cut_stops_everything_and_power_on_brings_back_what_should_run,
        host::a_link_that_is_down_cuts_the_host_off_until_it_is_up,
        host::a_silenced_host_answers_nothing_and_refuses_nothing,
        host::an_engine_that_is_killed_or_stopped_starts_again,
        host::with_live_restore_containers_outlive_a_killed_engine,
        host::a_small_disk_can_be_full_and_free_again,
        host::a_registry_with_a_password_refuses_others,
        images::every_behaviour_of_the_app_can_be_had_by_a_tag,
        kamal::a_snapshot_tells_what_changed,
        kamal::real_kamal_sets_up_deploys_executes_rolls_back_and_removes,
        deploy::deploy_deploy_and_rollback_lose_no_request,
        golden::a_host_that_dhow_deployed_looks_as_if_kamal_had,
        deploy::every_reading_command_answers,
        deploy::a_version_that_never_gets_healthy_is_told_why_and_the_old_one_serves_on,
        secrets::canaries_are_found_only_where_secrets_belong,
        demo::the_demo_deploys_twice_under_load_and_leaves_no_trace,
        clean::two_fleets_exist_at_once_without_meeting,
        clean::a_host_that_does_not_come_up_is_named_with_its_log_and_leaves_nothing,
        clean::without_root_or_rights_one_message_says_what_is_missing,
        clean::without_a_docker_engine_one_message_says_so,
        clean::fleets_below_two_directories_do_not_meet,
        clean::a_port_in_use_is_named,
        clean::nothing_is_left_after_runs_in_order_panics_and_kills,
    ];
    suite::main(cases, FleetOptions { sshd: true, ..FleetOptions::hosts(3) })
}
