module github.com/djangobridge/djangobridge/bench

go 1.26.0
