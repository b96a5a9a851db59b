package document

import "cel.dev/cel-go/common/ast"

// nestingOf is how deep an expression nests lists, objects and the macros that loop: the
// time that it takes to check one rises with the cube of that. It looks no deeper than to
// most and one more. A chain, such as `a.map(…).filter(…)`, nests nothing.
func nestingOf(e ast.Expr, most int) int {
	if most < 0 {
		return 0
	}
	deepest := 0
	beside := func(of ...ast.Expr) {
		for _, one := range of {
			deepest = max(deepest, nestingOf(one, most))
		}
	}
	within := func(of ...ast.Expr) {
		for _, one := range of {
			deepest = max(deepest, 1+nestingOf(one, most-1))
		}
	}
	entries := func(of []ast.EntryExpr) {
		for _, entry := range of {
			if entry.Kind() == ast.MapEntryKind {
				within(entry.AsMapEntry().Key(), entry.AsMapEntry().Value())
			} else {
				within(entry.AsStructField().Value())
			}
		}
	}
	switch e.Kind() {
	case ast.CallKind:
		if call := e.AsCall(); call.IsMemberFunction() {
			beside(call.Target())
		}
		beside(e.AsCall().Args()...)
	case ast.ListKind:
		within(e.AsList().Elements()...)
	case ast.MapKind:
		entries(e.AsMap().Entries())
	case ast.StructKind:
		entries(e.AsStruct().Fields())
	case ast.SelectKind:
		beside(e.AsSelect().Operand())
	case ast.ComprehensionKind:
		loop := e.AsComprehension()
		beside(loop.IterRange(), loop.AccuInit())
		within(loop.LoopCondition(), loop.LoopStep(), loop.Result())
	case ast.UnspecifiedExprKind, ast.IdentKind, ast.LiteralKind:
	}
	return deepest
}
