// Package schedule has runs created at the times of cron expressions.
//
// A schedule is one record of the journal, replaced with every change. The run
// of a time has an id made from the schedule's and the time, so that it is
// created once, whatever crashes and however many runtimes have the schedule.
// Times follow the wall clock, in the schedule's time zone: one that the clocks
// leave out in spring has no run. Of the times that passed while no runtime was
// there, only the latest has its run.
package schedule
