package journal

import "testing"

func TestNewestIsForgottenBeforeAnAppend(t *testing.T) {
	t.Parallel()
	n := newNewest()
	read := func() bool { _, _, found := n.find("s.a"); return found }
	reread := func() {
		_, version, _ := n.find("s.a")
		n.keep(version, Record{Subject: "s.a"})
	}
	reread()
	if !read() {
		t.Fatal("a record that was read is not remembered")
	}

	_, before, _ := n.find("s.a")
	c := n.begin(Message{Subject: "s.a"})
	_, during, _ := n.find("s.a")
	if read() {
		t.Error("remembered while an append is under way")
	}
	if reread(); read() {
		t.Error("remembered again while an append is under way")
	}
	c.end(true)
	if n.keep(before, Record{Subject: "s.a"}); read() {
		t.Error("a record that was read before the append is remembered after it")
	}
	if n.keep(during, Record{Subject: "s.a"}); read() {
		t.Error("a record that was read during the append is remembered after it")
	}
	if reread(); !read() {
		t.Error("not remembered after the append")
	}
}

func TestAppendWithoutAnswerMayHappenUntilALaterOneIsAnswered(t *testing.T) {
	t.Parallel()
	n := newNewest()
	remembers := func() bool {
		_, version, _ := n.find("s.a")
		n.keep(version, Record{Subject: "s.a"})
		_, _, found := n.find("s.a")
		return found
	}
	earlier := n.begin(Message{Subject: "s.b"})
	n.begin(Message{Subject: "s.a"}).end(false)
	if remembers() {
		t.Error("remembered although the append may still happen")
	}
	if earlier.end(true); remembers() {
		t.Error("an append that began before proves nothing")
	}
	n.begin(Message{Subject: "s.b"}, Message{Subject: "s.c"}).end(true)
	if !remembers() {
		t.Error("not remembered although the server took a later append")
	}
}
