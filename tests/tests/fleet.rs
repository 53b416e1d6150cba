//! Tests that need real Docker hosts; they share one fleet of three where they can.

use std::process::ExitCode;

use dhow_tests::{FleetOptions, cases, suite};

#[path = "fleet/clean.rs"]
mod clean;
#[path = "fleet/demo.rs"]
mod demo;
#[path = "fleet/deploy.rs"]
mod deploy;
#[path = "fleet/drift.rs"]
mod drift;
#[path = "fleet/everyday.rs"]
mod everyday;
#[path = "fleet/faults.rs"]
mod faults;
#[path = "fleet/fire.rs"]
mod fire;
#[path = "fleet/golden.rs"]
mod golden;
#[path = "fleet/hold.rs"]
mod hold;
#[path = "fleet/host.rs"]
mod host;
#[path = "fleet/images.rs"]
mod images;
#[path = "fleet/kamal.rs"]
mod kamal;
#[path = "fleet/kills.rs"]
mod kills;
#[path = "fleet/offline.rs"]
mod offline;
#[path = "fleet/refusals.rs"]
mod refusals;
#[path = "fleet/scene.rs"]
mod scene;
#[path = "fleet/secrets.rs"]
mod secrets;
#[path = "fleet/traces.rs"]
mod traces;

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
        fire::a_client_killed_while_the_proxy_waits_costs_the_next_deploy_nothing,
        fire::a_host_that_falls_silent_mid_deploy_is_named_and_settles_when_it_is_back,
        fire::a_host_unreachable_from_the_start_is_named_at_once_and_nothing_is_changed,
        fire::why_a_version_does_not_get_healthy_is_told_in_a_sentence,
        fire::what_failed_on_a_host_is_not_retried_after_restarts_and_a_power_cut,
        offline::a_host_that_was_away_goes_straight_to_the_newest_version,
        hold::kamal_and_dhow_hand_hosts_to_each_other_and_lose_no_request,
        hold::what_kamal_did_to_a_managed_host_stays_until_the_next_deploy,
        hold::a_strange_container_or_lock_holds_the_app_and_says_so,
        drift::what_is_taken_away_comes_back_by_itself_and_is_told,
        drift::what_was_taken_away_while_the_agent_was_gone_comes_back_with_it,
        drift::with_the_controller_gone_apps_serve_and_come_back_and_the_cli_says_so,
        everyday::versions_and_redeploys_and_filters_do_what_they_say,
        everyday::apps_and_destinations_share_hosts_without_meeting,
        everyday::one_host_of_each_registry_mirror_pulls_before_the_others,
        everyday::boot_groups_run_their_hooks_and_roles_without_proxy_are_waited_for,
        refusals::hosts_that_are_not_there_are_named_before_anything_changes,
        refusals::a_locked_app_is_refused_naming_who_and_waited_for_where_asked,
        refusals::what_another_app_owns_is_refused_naming_both,
        refusals::a_version_that_cannot_start_is_told_why_and_the_old_one_serves_on,
        refusals::a_wrong_registry_password_and_a_full_disk_are_told,
        secrets::canaries_are_found_only_where_secrets_belong,
        kills::an_engine_killed_without_live_restore_leaves_nothing_that_the_next_deploy_minds,
        kills::a_hook_whose_client_was_killed_is_not_run_again_and_a_person_says_how_it_went,
        kills::whoever_is_killed_at_a_step_or_stage_the_end_is_that_of_a_run_without,
        demo::the_demo_deploys_twice_under_load_and_leaves_no_trace,
        faults::without_root_or_rights_one_message_says_what_is_missing,
        faults::without_a_docker_engine_one_message_says_so,
        faults::a_kernel_feature_that_is_missing_is_named,
        faults::namespaces_in_use_under_a_fleets_names_are_taken_over,
        faults::a_port_in_use_is_named,
        faults::a_host_that_does_not_come_up_is_named_with_its_log_and_leaves_nothing,
        clean::two_fleets_exist_at_once_without_meeting,
        clean::fleets_below_two_directories_do_not_meet,
        clean::nothing_is_left_after_runs_in_order_panics_and_kills,
    ];
    suite::main(cases, FleetOptions { sshd: true, ..FleetOptions::hosts(3) })
}
